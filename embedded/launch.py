"""Become a server that does not outlive the process that started it.

Run as a script with nothing but the standard library: `launch.py IDENTITY SIGNAL PARENT COMMAND...` asks the
kernel to send SIGNAL when PARENT dies and then becomes COMMAND. IDENTITY says who the command runs as:

- `same`: as the caller.
- `namespace`: root without being root, in a user namespace of its own. PostgreSQL refuses to run as root.
- `nobody`: as the user nobody, keeping the one capability to read and write files of others, for machines that
  forbid user namespaces. What the command writes belongs to nobody.

Exit status 70 tells that the machine does not allow the identity.
"""

import ctypes
import os
import sys

IDENTITY_REFUSED = 70
NOBODY = 65534

_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_LINUX_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _enter_user_namespace() -> None:
    _check(_libc.unshare(_CLONE_NEWUSER))


def _become_nobody() -> None:
    _check(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    keep = 1 << _CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    effective_permitted_inheritable = (ctypes.c_uint32 * 6)(keep, keep, keep, 0, 0, 0)
    _check(_libc.capset(header, effective_permitted_inheritable))
    _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0))


_BECOME = {"same": lambda: None, "namespace": _enter_user_namespace, "nobody": _become_nobody}


def main() -> None:
    identity, number, parent, *command = sys.argv[1:]
    os.umask(0o077)
    try:
        _BECOME[identity]()
    except OSError:
        sys.exit(IDENTITY_REFUSED)
    # After the change of identity: the kernel forgets the signal when credentials change.
    _check(_libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0))
    if os.getppid() != int(parent):
        sys.exit("the process that asked for this server is gone")
    os.execv(command[0], command)  # noqa: S606 - the command is ours, no shell


if __name__ == "__main__":
    main()
