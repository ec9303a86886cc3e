"""Argument vector to exit code."""

import os
import sys


def main() -> int:
    """The command `arbitrium-agent`.

    `run` goes straight to `agent.init.main`: a game must not wait for an argument parser. All else goes to `agent.cli`.

    Returns:
        The exit code.
    """
    arguments = sys.argv[1:]
    if arguments[:1] == ["run"] and not {"-h", "--help"} & set(arguments[1:2]):
        from agent.init import main as init  # noqa: PLC0415 - the commands do not need it

        code = init.main(arguments[1:])
        # Nothing is left to do: taking the interpreter apart would only make the container's end later.
        os._exit(code)
    from agent import cli  # noqa: PLC0415 - `run` does not need it

    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
