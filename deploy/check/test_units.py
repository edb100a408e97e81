"""The units of systemd, and what they read."""

import configparser
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from kit import ROOT, env_file, known, read, start

FOLDER = "deploy/systemd"
UNITS = sorted(path.name for path in (ROOT / FOLDER).glob("*.service"))
SERVICES = ["leads-api.service", "leads-consumer.service", "leads-consumer@.service"]
# Of systemd's own reckoning, in tenths; 100 is a service without any bound.
EXPOSURE = 20


def unit(name):
    # Of what is there twice, the last.
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",))
    parser.optionxform = str
    parser.read_string(read(f"{FOLDER}/{name}"))
    return {section: dict(parser.items(section)) for section in parser.sections()}


def bounds(name):
    """The lines from the one on that begins the hardening."""
    text = read(f"{FOLDER}/{name}")
    return text[text.index("# Nothing of the system") :].split("\n\n")[0].strip()


class Units(unittest.TestCase):
    def test_they_are_bound_alike(self):
        self.assertEqual(len({bounds(name) for name in UNITS}), 1)
        lines = bounds(UNITS[0]).splitlines()
        for line in ("NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict", "SystemCallFilter=@system-service"):
            self.assertIn(line, lines)

    def test_they_wait_for_the_end_and_start_again(self):
        for name in SERVICES:
            service = unit(name)["Service"]
            self.assertEqual(service["Restart"], "on-failure")
            self.assertEqual(service["RestartPreventExitStatus"], "2")
            self.assertEqual(service["User"], "leads")
            self.assertIn("MemoryMax", service)
        given = env_file(f"{FOLDER}/api.env")
        grace = int(re.fullmatch(r"(\d+)s", given["SHUTDOWN_GRACE"])[1])
        # Twice PUBLISH_TIMEOUT (5 s) and READ_WAIT (2 s) come after the grace.
        stop = int(re.fullmatch(r"(\d+)s", unit("leads-api.service")["Service"]["TimeoutStopSec"])[1])
        self.assertGreater(stop, grace + 2 * 5 + 2 * 2 + 5)

    def test_a_reload_never_ends_an_api_without_tls(self):
        [_, script] = unit("leads-api.service")["Service"]["ExecReload"].split(" -c ")
        script = script.strip("'").replace("$$", "$")
        with tempfile.TemporaryDirectory() as folder:
            # The builtin would win over a program of that name.
            script = f'kill() {{ echo "$@" >{folder}/sent; }}; {script}'
            sent = pathlib.Path(folder, "sent")
            without = subprocess.run(["sh", "-c", script], env={"MAINPID": "7"}, capture_output=True, text=True)
            self.assertEqual((without.returncode, sent.exists()), (1, False))
            self.assertIn("API_TLS_CERT is not set", without.stderr)
            subprocess.run(["sh", "-c", script], env={"MAINPID": "7", "API_TLS_CERT": "x"}, check=True)
            self.assertEqual(sent.read_text(), "-HUP 7\n")

    def test_several_consumers_have_names_and_ports_of_their_own(self):
        text = read(f"{FOLDER}/leads-consumer@.service")
        self.assertIn("\nEnvironment=KAFKA_GROUP_INSTANCE_ID=%H-%i\n", text)
        self.assertIn("\nEnvironment=METRICS_LISTEN=0.0.0.0:%i\n", text)
        for name in ("leads.env", "consumer.env"):
            # A file would win over both.
            self.assertFalse({"KAFKA_GROUP_INSTANCE_ID", "METRICS_LISTEN"} & set(env_file(f"{FOLDER}/{name}")))


class Environment(unittest.TestCase):
    def test_the_binaries_know_every_variable(self):
        of = {
            "leads.env": known("leads-consumer", "topics") | known("leads-consumer", "run"),
            "api.env": known("leads-api", "serve"),
            "consumer.env": known("leads-consumer", "run"),
        }
        for name, names in of.items():
            given = {it for it in env_file(f"{FOLDER}/{name}") if not it.startswith("KAFKA_")}
            self.assertLessEqual(given, names, name)

    def test_the_binaries_take_the_values(self):
        shared = env_file(f"{FOLDER}/leads.env")
        start("leads-api", "serve", shared | env_file(f"{FOLDER}/api.env"))
        start("leads-consumer", "run", shared | env_file(f"{FOLDER}/consumer.env"))


@unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not here")
class BySystemd(unittest.TestCase):
    def analyze(self, *args):
        done = subprocess.run(["systemd-analyze", *args], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def installed(self, folder):
        """The units with programs that are there."""
        binaries = os.environ["DEPLOY_BINARIES"]
        paths = []
        for name in UNITS:
            path = pathlib.Path(folder, name.replace("@.", "@9465."))
            path.write_text(read(f"{FOLDER}/{name}").replace("/usr/bin/leads-", f"{binaries}/leads-"))
            paths.append(path)
        return paths

    def test_systemd_takes_them(self):
        with tempfile.TemporaryDirectory() as folder:
            for path in self.installed(folder):
                code, said = self.analyze("verify", "--man=no", "--recursive-errors=no", path)
                self.assertEqual(code, 0, said)
                self.assertNotIn(path.name, said)

    def test_they_are_as_closed_as_they_can_be(self):
        with tempfile.TemporaryDirectory() as folder:
            for path in self.installed(folder):
                code, said = self.analyze("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", path)
                self.assertEqual(code, 0, said)


if __name__ == "__main__":
    unittest.main()
