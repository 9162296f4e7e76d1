"""Tables, figures and a page, made from a run folder alone."""
