"""What the tests of the example application share."""
