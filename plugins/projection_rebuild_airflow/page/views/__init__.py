"""View models of the page: they hold words, shares and links, so that a template computes nothing. Pure."""
