"""Packages and entry points only; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def tree(top: str) -> list[tuple[str, list[str]]]:
    """Every file below `top`, as data files that land under <prefix>/share/uaihost."""
    folders: dict[str, list[str]] = {}
    for path in sorted((HERE / top).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            relative = path.relative_to(HERE)
            folders.setdefault(f"share/uaihost/{relative.parent}", []).append(str(relative))
    return sorted(folders.items())


setup(
    name="uaihost",
    version="0.1.0",
    description="A crew of coding agents on your own machine, reached through one WebSocket",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    # Tests are in the source distribution; nothing installed imports them.
    packages=[*find_packages(include=["uaihost", "uaihost.*"], exclude=["uaihost.test*"]), "twisted.plugins"],
    package_data={
        "uaihost": ["py.typed", "bridge/static/*", "web/static/*", "cli/sample/*", "cli/sample/uai/*"],
        "twisted": ["plugins/uaihost_plugin.py"],
    },
    data_files=[*tree("migrations"), *tree("images")],
    install_requires=[
        "attrs>=25",
        "autobahn>=26.10",
        "automat>=25.4",
        "click>=8.2",
        "cryptography>=46",
        "docker>=7.2",
        "graphql-core>=3.3",
        "h11>=0.16",
        "isal>=1.9",
        "klein>=24.8",
        "msgspec>=0.22",
        "prometheus-client>=0.23",
        "python-ulid>=4",
        "rich>=15",
        "treq>=26.5",
        "twisted[tls]>=26.10",
        "zope.interface>=8",
    ],
    # For UAI_SECRETS_KEY=keyring.
    extras_require={"keyring": ["keyring>=25"]},
    entry_points={"console_scripts": ["uaihost = uaihost.cli.main:main"]},
)
