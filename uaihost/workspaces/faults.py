"""What git says when it fails, and what that means for people. Runs nothing."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from uaihost.children import Finished
from uaihost.errors import ErrorCode, HostError

_SECRET = re.compile(r"(\w+://)[^/@\s]+@")

_NOT_FOUND = ("not found", "does not exist", "no such", "does not appear to be a git repo")
_SIGN_IN = (
    "could not read username",
    "could not read password",
    "authentication failed",
    "terminal prompts disabled",
    "error: 401",
    "error: 403",
    "access denied",
)
# Nobody answered, or what answered was not the repository's own server: what was fetched before still holds.
_UNREACHABLE = (
    "could not resolve",
    "name resolution",
    "connection refused",
    "connection timed out",
    "operation timed out",
    "failed to connect",
    "couldn't connect",
    "network is unreachable",
    "no route to host",
    "host is down",
    "connection reset",
    "operation too slow",
    "connection closed",
    "empty reply from server",
    "error: 429",
    "error: 500",
    "error: 502",
    "error: 503",
    "error: 504",
)
_CORRUPT = (
    "corrupt",
    "bad object",
    "bad tree",
    "failed to unpack tree",
    "failed to read object",
    "inflate: data",
    "packfile",
    "unable to read",
    "unable to find",
    "missing blob",
    "missing tree",
    "missing commit",
    "did not send all necessary objects",
    "could not parse",
    "unable to parse",
    "reference broken",
    "not a git repository",
    "broken ref",
    "unable to resolve reference",
)


class GitFailed(Exception):
    """git ended with an error. `words`: its command and options; `text`: what it said, without secrets."""

    def __init__(self, words: Sequence[str], finished: Finished) -> None:
        self.words = tuple(words)
        self.finished = finished
        self.text = scrubbed(finished.err[-8192:].decode("utf-8", "replace")).strip()
        super().__init__(f"git {words[0]} ended with {finished.status}: {self.text[-500:]}")

    @property
    def last_line(self) -> str:
        """The last thing it said."""
        lines = [line.strip() for line in re.split(r"[\r\n]", self.text) if line.strip()]
        if self.exhausted:
            return f"git {self.words[0]} came to no end; see the patterns in .gitignore and .gitattributes"
        return lines[-1][:300] if lines else f"git {self.words[0]} ended with status {self.finished.status}"

    @property
    def exhausted(self) -> bool:
        """Whether it was ended for the processor time that it used."""
        return self.finished.status == -signal.SIGXCPU

    @property
    def starved(self) -> bool:
        """Whether it wanted more memory than it may have."""
        return "out of memory" in self.text.lower()

    @property
    def locked(self) -> bool:
        """Whether another git, or the rest of one that was killed, stood in its way."""
        return ".lock': file exists" in self.text.lower()

    @property
    def refused(self) -> bool:
        """Whether a server answered that it does not give the repository to whoever asked."""
        said = self.text.lower()
        unseen = re.search(r"repository ('[^']*' )?not found", said) is not None
        return unseen or any(words in said for words in (*_SIGN_IN, "permission denied ("))

    @property
    def corrupt(self) -> bool:
        """Whether it complained of damaged or missing objects."""
        return any(words in self.text.lower() for words in _CORRUPT)


def scrubbed(text: str) -> str:
    """`text` without the user names and passwords of addresses in it."""
    return _SECRET.sub(r"\1", text)


def is_unreachable(error: GitFailed | HostError) -> bool:
    """Whether the remote could not be asked at all, so that it neither has nor refuses the repository."""
    if isinstance(error, HostError):
        return error.code is ErrorCode.TIMEOUT
    said = error.text.lower()
    refused = (*_SIGN_IN, "permission denied", "host key", "host identification")
    return any(words in said for words in _UNREACHABLE) and not any(words in said for words in refused)


def clone_error(failed: GitFailed, display: str) -> HostError:
    """What to tell people about a clone or fetch of `display` that failed."""
    return HostError(ErrorCode.CLONE_FAILED, f"{display} cannot be fetched: {reason(failed)}")


def reason(failed: GitFailed) -> str:
    """Why a repository could not be reached, and what to do, as the end of a sentence."""
    said = failed.text.lower()
    if "cannot run ssh" in said:
        return "ssh is not installed on the host; install openssh-client"
    if "host identification has changed" in said:
        return (
            "its SSH host key is another one than before: the server was set up anew, or somebody stands in "
            "between; when you know that it is right, remove the old key from ~/.ssh/known_hosts and from "
            "mirrors/.git-home/known_hosts in the data folder"
        )
    if "host key verification failed" in said:
        return "its SSH host key cannot be checked; connect to it once with ssh on this host"
    if "permission denied (" in said:
        return (
            "the server refused this host's SSH keys; add the public half of one there, for example of the "
            "one that `uaihost ssh-key ensure` makes and prints. A key with a passphrase is used only "
            "from an SSH agent (SSH_AUTH_SOCK)"
        )
    if any(words in said for words in _SIGN_IN):
        return "it needs a sign-in; give this host access to it, or check the address"
    if "no space left" in said:
        return "the disk is full; free some space on the host"
    if "is this a git repository?" in said or "does not appear to be a git repo" in said:
        return "there is no git repository at that address; check it"
    if is_unreachable(failed):
        return "the server cannot be reached; check the address and the host's network"
    if "certificate" in said or "ssl" in said:
        return f"the connection is not secure ({failed.last_line}); name the right authority in SSL_CERT_FILE"
    if any(words in said for words in _NOT_FOUND):
        return "there is no such repository, or this host may not see it; check the address"
    return f"git says: {failed.last_line}"
