"""How the parts of one process are put together; `activation.app` is the whole."""
