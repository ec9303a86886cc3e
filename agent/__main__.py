"""Argument vector to exit code."""

import _signal  # type: ignore[import-not-found]  # the C part of `signal`
import os
import sys

# Stop signals are blocked from the first line on, as the launcher has done before: the kernel drops a stop signal for a
# PID 1 without a handler, but keeps it pending if it is blocked. `agent.init.signals` handles it later. (`signal`
# itself would import `enum` first.)
_STOP_SIGNALS = (_signal.SIGTERM, _signal.SIGINT)
_signal.pthread_sigmask(_signal.SIG_BLOCK, _STOP_SIGNALS)


def main() -> int:
    """The command `arbitrium-agent`.

    `run` goes directly to `agent.init.main`: a game must not wait for an argument parser. The rest goes to `agent.cli`.

    Returns:
        The exit code.
    """
    arguments = sys.argv[1:]
    if arguments[:1] == ["run"] and not {"-h", "--help"} & set(arguments[1:2]):
        from agent.init import main as init  # noqa: PLC0415 - the commands do not need it

        code = init.main(arguments[1:])
        # Nothing is left to do: the shutdown of the interpreter would only delay the end of the container.
        os._exit(code)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _STOP_SIGNALS)
    from agent import cli  # noqa: PLC0415 - `run` does not need it

    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
