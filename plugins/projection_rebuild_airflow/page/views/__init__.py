"""What the page shows: models that hold words, shares and links, so that a template works nothing out. Pure."""
