"""Settings: precedence, every bad value with its source, and the table in the documents."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from uaihost import config
from uaihost.config import SETTINGS, load
from uaihost.errors import SettingError
from uaihost.test.support import given, short_folder, strategies

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"

BAD = [
    ("token", "two words"),
    ("cloud_url", "http://bridge.example/host"),
    ("cloud_url", "wss://"),
    ("cloud_url", "wss://user:secret@bridge.example/host"),
    ("bridge_port", "0"),
    ("bridge_port", "65536"),
    ("bridge_port", "eight"),
    ("bridge_port", "²"),
    ("host_id", "a b"),
    ("ui_port", "-1"),
    ("data_dir", "relative/path"),
    ("ca_file", "/nowhere/ca.pem"),
    ("docker_host", "/var/run/docker.sock"),
    ("base_image", "--privileged"),
    ("local_repositories", "/srv:relative"),
    ("task_memory", "1M"),
    ("task_memory", "lots"),
    ("task_cpus", "0"),
    ("task_cpus", "nan"),
    ("task_pids", "3"),
    ("task_image", "tiny"),
    ("task_swap", "-1"),
    ("task_disk", "1M"),
    ("disk_budget", "much"),
    ("egress", "some"),
    ("egress_allow", "a b"),
    ("egress_allow", "example.org:0"),
    ("egress_allow", "10.0.0.0/64"),
    ("claude_base_url", "ftp://gateway.example"),
    ("claude_base_url", "https://user:secret@gateway.example"),
    ("codex_base_url", "gateway.example"),
    ("acp_agents", "gemini"),
    ("acp_agents", "Big Name=gemini --acp"),
    ("acp_agents", "a=x;a=y"),
    ("acp_agents", "a='open"),
    ("permission_expiry", "0"),
    ("permission_expiry", "nan"),
    ("budget_hops", "-1"),
    ("budget_turns", "many"),
    ("budget_tokens", "1.5"),
    ("budget_minutes", "1h"),
    ("github_url", "http://github.com"),
    ("github_url", "https://ghe.example/api"),
    ("github_api_url", "https://user@ghe.example"),
    ("github_client_id", "a b"),
    ("github_client_secret", "a b"),
    ("secrets_source", "vault"),
    ("co_author", "yes"),
    ("log_format", "xml"),
    ("log_level", "loud"),
]


class LoadTests(TestCase):
    def load(self, environ: dict[str, str], **flags: str | None) -> config.Settings:
        return load(flags, environ, home=Path("/home/owner"), root=False)

    def test_defaults_are_the_references(self) -> None:
        settings = self.load({})
        self.assertEqual(settings.cloud_url, "ws://127.0.0.1:8789/host")
        self.assertEqual(settings.ui_port, 5876)
        self.assertEqual(settings.data_dir, Path("/home/owner/.local/share/uaihost"))

    def test_the_bridge_port_moves_the_default_url(self) -> None:
        self.assertEqual(self.load({"UAI_HOST_BRIDGE_PORT": "9000"}).cloud_url, "ws://127.0.0.1:9000/host")

    def test_a_flag_wins_over_the_environment(self) -> None:
        settings = self.load({"UAI_HOST_UI_PORT": "1000"}, ui_port="2000")
        self.assertEqual(settings.ui_port, 2000)

    def test_the_environment_wins_over_the_file(self) -> None:
        path = short_folder(self) / "uaihost.toml"
        path.write_text('ui_port = 3000\ntask_pids = 99\nlocal_repositories = ["/a", "/b"]\n')
        settings = self.load({"UAI_CONFIG": str(path), "UAI_HOST_UI_PORT": "1000"})
        self.assertEqual((settings.ui_port, settings.task_pids), (1000, 99))
        self.assertEqual(settings.local_repositories, (Path("/a"), Path("/b")))

    def test_destinations(self) -> None:
        text = "Git.Example.org:8443, *.corp.example, 192.168.1.0/24,10.0.0.7:5432"
        settings = self.load({"UAI_EGRESS_ALLOW": text})
        self.assertEqual(
            settings.egress_allow,
            ("git.example.org:8443", "*.corp.example", "192.168.1.0/24", "10.0.0.7:5432"),
        )

    def test_agents_of_ones_own(self) -> None:
        settings = self.load({"UAI_ACP_AGENTS": "gemini=gemini --acp; own = 'my agent' -x"})
        self.assertEqual(settings.acp_agents, (("gemini", ("gemini", "--acp")), ("own", ("my agent", "-x"))))
        path = short_folder(self) / "uaihost.toml"
        path.write_text('acp_agents = ["a=x", "b=y -z"]\n')
        settings = self.load({"UAI_CONFIG": str(path)})
        self.assertEqual(settings.acp_agents, (("a", ("x",)), ("b", ("y", "-z"))))

    def test_a_gateway_has_no_slash_at_its_end(self) -> None:
        settings = self.load({"UAI_CLAUDE_BASE_URL": "http://10.0.0.7:8099/v1/"})
        self.assertEqual(settings.claude_base_url, "http://10.0.0.7:8099/v1")
        self.assertIsNone(settings.codex_base_url)

    def test_tasks_reach_the_gateways_of_agents(self) -> None:
        settings = self.load(
            {
                "UAI_EGRESS_ALLOW": "10.0.0.7:5432",
                "UAI_CLAUDE_BASE_URL": "https://gateway.corp.example/anthropic",
                "UAI_CODEX_BASE_URL": "http://[fd00::7]:8099/v1",
            }
        )
        self.assertEqual(settings.reachable, ("10.0.0.7:5432", "gateway.corp.example:443", "[fd00::7]:8099"))

    def test_a_gateway_on_loopback_opens_nothing_of_this_machine(self) -> None:
        for url in ("http://127.0.0.1:8099", "http://[::1]:8099", "http://localhost", "http://a.localhost:1"):
            self.assertEqual(self.load({"UAI_CLAUDE_BASE_URL": url}).reachable, ())

    def test_where_github_answers_follows_from_its_address(self) -> None:
        self.assertEqual(self.load({}).github_api_url, "https://api.github.com")
        own = self.load({"UAI_GITHUB_URL": "https://ghe.example:8443/"})
        self.assertEqual(own.github_api_url, "https://ghe.example:8443/api/v3")
        self.assertEqual(
            self.load({"UAI_GITHUB_API_URL": "https://a.example/x/"}).github_api_url, "https://a.example/x"
        )

    def test_hours_become_seconds(self) -> None:
        self.assertEqual(self.load({"UAI_PERMISSION_EXPIRY": "0.5"}).permission_expiry, 1800)
        self.assertEqual(self.load({}).permission_expiry, 7 * 24 * 3600)

    def test_an_empty_variable_counts_as_absent(self) -> None:
        self.assertEqual(self.load({"UAI_HOST_UI_PORT": ""}).ui_port, 5876)

    def test_a_secret_may_lie_in_a_file(self) -> None:
        path = short_folder(self) / "token"
        path.write_text("s3cret\n")
        settings = self.load({"UAI_HOST_TOKEN_FILE": str(path)})
        self.assertEqual(settings.require_token(), "s3cret")
        self.assertNotIn("s3cret", repr(settings))

    def test_a_missing_token_file_is_named(self) -> None:
        error = self.assertRaises(SettingError, self.load, {"UAI_HOST_TOKEN_FILE": "/nowhere/token"})
        self.assertIn("UAI_HOST_TOKEN_FILE", error.message)

    def test_no_token_says_where_to_put_it(self) -> None:
        error = self.assertRaises(SettingError, self.load({}).require_token)
        self.assertIn("UAI_HOST_TOKEN_FILE", error.message)

    def test_every_bad_value_names_its_source_and_the_legal_range(self) -> None:
        legal = {setting.name: (setting.env, setting.legal, setting.secret) for setting in SETTINGS}
        for name, text in BAD:
            env, range_, secret = legal[name]
            error = self.assertRaises(SettingError, self.load, {env: text})
            self.assertIn(env, error.message)
            self.assertIn(range_, error.message)
            if secret:
                self.assertNotIn(text, error.message)

    def test_every_setting_has_a_bad_value_in_this_test(self) -> None:
        self.assertEqual({name for name, _ in BAD}, {setting.name for setting in SETTINGS})

    def test_a_bad_flag_and_a_bad_key_name_themselves(self) -> None:
        error = self.assertRaises(SettingError, self.load, {}, ui_port="x")
        self.assertIn("flag --ui-port", error.message)
        path = short_folder(self) / "uaihost.toml"
        path.write_text("ui_port = 0\n")
        error = self.assertRaises(SettingError, self.load, {"UAI_CONFIG": str(path)})
        self.assertIn(f"`ui_port` in {path}", error.message)

    def test_an_unknown_key_lists_the_known_ones(self) -> None:
        path = short_folder(self) / "uaihost.toml"
        path.write_text("uiport = 1\n")
        error = self.assertRaises(SettingError, self.load, {"UAI_CONFIG": str(path)})
        self.assertIn("ui_port", error.message)

    def test_a_survey_says_all_that_is_wrong_and_keeps_what_is_right(self) -> None:
        path = Path(self.mktemp())
        path.write_text('colour = "red"\nshape = "round"\nui_port = 6000\n', encoding="utf-8")
        environ = {"UAI_CONFIG": str(path), "UAI_TASK_CPUS": "many", "UAI_TASK_PIDS": "64"}
        found, problems = config.survey({}, environ, home=Path("/home/owner"), root=False)
        self.assertEqual([problem.partition(";")[0] for problem in problems], [
            f"{path}: unknown key 'colour'",
            f"{path}: unknown key 'shape'",
            "UAI_TASK_CPUS: 'many' is not legal",
        ])  # fmt: skip
        self.assertEqual((found.ui_port, found.task_pids, found.task_cpus), (6000, 64, 2.0))
        with self.assertRaises(SettingError) as caught:
            self.load(environ)
        self.assertEqual(caught.exception.message, problems[0])

    def test_a_file_that_is_not_toml_is_named(self) -> None:
        path = short_folder(self) / "uaihost.toml"
        path.write_text("= what\n")
        error = self.assertRaises(SettingError, self.load, {"UAI_CONFIG": str(path)})
        self.assertIn(str(path), error.message)

    @given(strategies.sampled_from([s.env for s in SETTINGS]), strategies.text(max_size=40))
    def test_any_text_loads_or_is_refused_with_its_source(self, env: str, text: str) -> None:
        try:
            self.load({env: text})
        except SettingError as error:
            self.assertIn(env, error.message)

    def test_the_document_holds_the_table(self) -> None:
        self.assertIn(config.table_text(), DOCS.read_text(encoding="utf-8"))
