"""The project's Hub datasets: the row schema, the rendered world, UVRB and UVRD."""
