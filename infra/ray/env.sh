# shellcheck shell=bash
# Sourced on every node before Ray starts, and before a sweep: the same settings everywhere.
export RAY_AUTH_MODE=token # the token itself is in ~/.ray/auth_token
export MEMORY_SWEEP_CACHE=$HOME/.cache/memory-sweep # on the node's own disk
export PATH=$HOME/memory-sweep/.venv/bin:$PATH
ulimit -n 65536 2>/dev/null || true
