"""The settings as a TOML file that sets nothing: each key is a comment with its meaning and its default."""

from __future__ import annotations

import textwrap

from uaihost.config.table import SETTINGS

# What the Debian package's services get from their units; a line in the file would change nothing.
FIXED = {"token", "data_dir"}
HEAD = """\
# Settings of the uaihost and uaibridge services. Take the # off a key to set it, then type:
#
#     sudo systemctl restart uaihost uaibridge
#
# The token that lets this host into its bridge is not here: it is the one line of /etc/uaihost/host-token.
"""


def sample() -> str:
    """The text of the package's /etc/uaihost/uaihost.toml."""
    parts = [HEAD]
    for setting in SETTINGS:
        if setting.name not in FIXED:
            said = f"{setting.meaning}. Legal: {setting.legal}. Default: {setting.default}."
            parts.append(
                textwrap.fill(said.replace("`", ""), 100, initial_indent="# ", subsequent_indent="# ")
            )
            parts.append(f'#{setting.name} = ""\n')
    return "\n".join(parts)
