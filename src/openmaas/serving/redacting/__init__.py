"""Personal data of requests, hidden on the way to a model and put back on the way from it."""
