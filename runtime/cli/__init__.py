"""The commands `info`, `predict`, `stream`, `serve`, `log` and `render`."""
