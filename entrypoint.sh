#!/bin/sh
# ENTRYPOINT of a game image: becomes the agent, which starts the command given as arguments (CMD) as the game.
#
#   ENTRYPOINT ["/opt/arbitrium-agent/entrypoint.sh"]
#   CMD ["/game/server", "-batchmode"]          or in shell form: CMD /game/server -batchmode $EXTRA_ARGS
#
# All arguments are the game's; the agent is set up by AGENT_* variables only. An image without a shell names the agent
# itself: ENTRYPOINT ["/opt/arbitrium-agent/bin/arbitrium-agent", "run", "--"].
#
# POSIX sh with built-ins alone (dash, bash, busybox and mksh were tried): an image may have no other program.

# A stop signal that arrives while this shell runs: the kernel drops it for a PID 1 without a handler. The agent's launcher
# is told of it, and sends it to itself when it is held back for the agent.
stop=
trap 'stop=${stop:-TERM}' TERM
trap 'stop=${stop:-INT}' INT

home=${0%/*}
agent=$home/bin/arbitrium-agent

say() { printf 'arbitrium-agent: %s\n' "$*" >&2; }

# True for a start script whose first line ends in a carriage return. Binaries have no line that starts with #!.
saved_on_windows() {
  [ -f "$1" ] && [ -r "$1" ] || return 1
  first=
  IFS= read -r first 2>/dev/null <"$1" || :
  case $first in
    '#!'*) ;;
    *) case $1 in *.sh) ;; *) return 1 ;; esac ;;
  esac
  [ -n "$cr" ] || cr=$(printf '\r') # a process of its own, which most starts do without
  case $first in *"$cr") return 0 ;; esac
  return 1
}

# The game's command may be a script, a shell with a script, or a shell with a line that names one: look at every word
# that could be it.
warn_of_windows_scripts() {
  seen=0
  for word; do
    seen=$((seen + 1))
    [ "$seen" -le 4 ] || return 0
    case $word in
      -*) continue ;;
      *' '* | *"$tab"* | *"$newline"*)
        set -f
        # shellcheck disable=SC2086 # split on purpose, without file name expansion
        ( set -- $word; warn_of_windows_scripts "$@" )
        set +f
        continue
        ;;
    esac
    if saved_on_windows "$word"; then
      say "$word has Windows line endings (CRLF): the game will probably not start. Save it with LF, or add to the" \
        "Dockerfile: RUN sed -i 's/\\r\$//' $word"
    fi
  done
}

cr=
tab='	'
newline='
'
warn_of_windows_scripts "$@"

# What `uname -m` says; Linux tells it without a program since 6.1.
find_machine() { IFS= read -r machine 2>/dev/null </proc/sys/kernel/arch || machine=$(uname -m 2>/dev/null); }

# Fail open: whatever is wrong with the runtime, the game is started. Another processor's runtime is found out by its
# name, since some shells would take such a program for a script and run its bytes.
problem=
if [ ! -x "$agent" ]; then
  problem="$agent is missing or not executable: copy the whole directory /opt/arbitrium-agent into the image"
elif IFS= read -r built_for 2>/dev/null <"$home/share/machine" && find_machine && [ "$machine" != "$built_for" ]; then
  problem="the runtime in $home is for $built_for, this machine is $machine: build or pull it with --platform"
elif ! "$agent" --check-runtime; then
  problem="the runtime in $home cannot run here, see above"
fi
if [ -n "$problem" ]; then
  say "cannot start the agent: $problem"
  if [ -n "$stop" ]; then
    say "cannot start the game: SIG$stop came first, and it would not hear of it"
    [ "$stop" = INT ] && exit 130
    exit 143
  fi
  say "the game runs without the agent: no API, no metrics, no graceful stop"
  if [ $# -eq 0 ]; then
    say "cannot start the game: there is no command; add CMD [\"/game/server\"] to the Dockerfile"
    exit 78
  fi
  exec "$@"
fi
[ -z "$stop" ] || export _ARBITRIUM_STOP="$stop"
exec "$agent" run -- "$@"
