"""How a command refuses its arguments, for tests."""


def refused(main, arguments, capsys):
    """The one line that a command writes as it ends with 2; libraries may write others before it."""
    assert main(list(map(str, arguments))) == 2, arguments
    told = capsys.readouterr()
    line = told.err.rstrip("\n").split("\n")[-1]
    assert told.out == "" and line.startswith("gve "), told
    return line
