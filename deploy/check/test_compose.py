"""The profile "observability" of the compose file: what Prometheus and Grafana find in their containers."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import jsonschema
import yaml
from kit import ROOT, load, read

PROMTOOL = os.environ.get("DEPLOY_PROMTOOL")
COMPOSE = load("docker-compose.yml")
SERVICES = COMPOSE["services"]


def files(service):
    """Path in the container → file of the repository."""
    mounts = [it.split(":") for it in SERVICES[service]["volumes"]]
    return {it[1]: it[0] for it in mounts if it[0].startswith("./")}


class Profile(unittest.TestCase):
    def test_the_file_is_a_compose_file(self):
        with open(os.environ["DEPLOY_COMPOSE_SCHEMA"]) as schema:
            jsonschema.validate(COMPOSE, json.load(schema))

    def test_it_is_the_profiles_alone_and_pinned(self):
        for name, service in SERVICES.items():
            watching = name in ("prometheus", "grafana")
            self.assertEqual(service.get("profiles"), ["observability"] if watching else None, name)
            if watching:
                self.assertRegex(service["image"], r":v?\d+\.\d+\.\d+$")

    def test_every_file_is_there_and_read_only(self):
        for name in ("prometheus", "grafana"):
            for mount in SERVICES[name]["volumes"]:
                source, _, *mode = mount.split(":")
                if source.startswith("./"):
                    self.assertTrue((ROOT / source).is_file(), source)
                    self.assertEqual(mode, ["ro"], mount)
                else:
                    self.assertIn(source, COMPOSE["volumes"])


class Prometheus(unittest.TestCase):
    def setUp(self):
        self.config = load("deploy/compose/prometheus.yml")

    def test_it_asks_both_on_their_ports(self):
        jobs = {it["job_name"]: it["static_configs"][0]["targets"] for it in self.config["scrape_configs"]}
        dockerfile = read("Dockerfile")
        self.assertEqual(set(jobs), {"leads-api", "leads-consumer"})
        for job, [target] in jobs.items():
            service, port = target.split(":")
            self.assertEqual(f"leads-{service}", job)
            self.assertIn(service, SERVICES)
            stage = dockerfile.split(f" AS {service}\n")[1].split("\nFROM ")[0]
            self.assertRegex(stage, rf"METRICS_LISTEN=0\.0\.0\.0:{port}\n")

    def test_it_finds_the_alerts(self):
        [config] = [path for path in files("prometheus") if path.endswith("prometheus.yml")]
        [rules] = self.config["rule_files"]
        path = str(pathlib.PurePosixPath(config).parent / rules)
        self.assertEqual(files("prometheus")[path], "./docs/ops/alerts.yaml")

    @unittest.skipUnless(PROMTOOL, "promtool is not here")
    def test_promtool_takes_the_configuration_and_the_rules(self):
        with tempfile.TemporaryDirectory() as folder:
            for path, source in files("prometheus").items():
                shutil.copy(ROOT / source, pathlib.Path(folder, pathlib.PurePosixPath(path).name))
            for args in (["check", "config", f"{folder}/prometheus.yml"], ["test", "rules", ROOT / "docs/ops/alerts_test.yaml"]):
                done = subprocess.run([PROMTOOL, *args], capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class Grafana(unittest.TestCase):
    def provisioned(self, kind):
        [source] = [source for path, source in files("grafana").items() if f"/provisioning/{kind}/" in path]
        return yaml.safe_load((ROOT / source).read_text())

    def test_it_asks_the_prometheus_beside_it(self):
        [source] = self.provisioned("datasources")["datasources"]
        self.assertEqual((source["type"], source["isDefault"]), ("prometheus", True))
        self.assertRegex(source["url"], r"^http://prometheus:9090$")
        self.assertEqual(source["jsonData"]["timeInterval"], load("deploy/compose/prometheus.yml")["global"]["scrape_interval"])

    def test_it_shows_the_dashboard(self):
        [provider] = self.provisioned("dashboards")["providers"]
        boards = {path: source for path, source in files("grafana").items() if path.startswith(provider["options"]["path"] + "/")}
        self.assertEqual(list(boards.values()), ["./docs/ops/dashboard.json"])
        home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        self.assertIn(home, boards)
        board = json.loads(read("docs/ops/dashboard.json"))
        # Chosen by type: whatever the source is called, the default one is taken.
        [source] = [it for it in board["templating"]["list"] if it["type"] == "datasource"]
        self.assertEqual(source["query"], "prometheus")
        self.assertFalse(re.search(r"\$\{DS_", json.dumps(board)), "made for import by hand, not for provisioning")


if __name__ == "__main__":
    unittest.main()
