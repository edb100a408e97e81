"""What the pages about deploying say can be done."""

import re
import subprocess
import tempfile
import unittest

import yaml
from kit import CHART, ROOT, VALUES, helm, one, pods, read, render

PAGES = ["docs/deploy.md", "deploy/helm/leads/README.md"]


def blocks(page, language):
    """What stands between the fences that name the language, those within lists left out."""
    parts = re.split(r"^```", read(page), flags=re.MULTILINE)
    return [it.removeprefix(f"{language}\n") for it in parts[1::2] if it.startswith(f"{language}\n")]


class Pages(unittest.TestCase):
    def test_every_file_that_they_name_is_there(self):
        for page in PAGES:
            for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", read(page)):
                self.assertTrue((ROOT / page).parent.joinpath(link).exists(), f"{page}: {link}")
        for path in re.findall(r"deploy/systemd/\S+", "".join(blocks("docs/deploy.md", ""))):
            self.assertTrue(list(ROOT.glob(path)), path)

    def test_every_anchor_is_a_heading(self):
        for page in PAGES:
            for link, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", read(page)):
                target = (ROOT / page).parent.joinpath(link) if link else ROOT / page
                headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
                anchors = {re.sub(r"[^a-z0-9 -]", "", it.lower()).replace(" ", "-") for it in headings}
                self.assertIn(anchor, anchors, f"{page}: {link}")

    def test_the_values_to_copy_are_taken(self):
        [values] = [it for it in blocks(PAGES[1], "yaml") if "values-production" in it]
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(values)
            file.flush()
            done = helm("template", "leads", CHART, "--values", file.name)
        self.assertEqual(done.returncode, 0, done.stderr)
        objects = [it for it in yaml.safe_load_all(done.stdout) if it]
        for kind in ("ServiceMonitor", "PrometheusRule"):
            self.assertTrue([it for it in objects if it["kind"] == kind], kind)
        # The commands of both pages go to these.
        self.assertEqual(one(objects, "StatefulSet")["metadata"]["name"], "leads-consumer")
        self.assertEqual(one(objects, "Deployment")["metadata"]["name"], "leads-api")

    def test_the_options_to_copy_are_taken(self):
        [block] = [it for it in blocks(PAGES[0], "") if "helm upgrade" in it]
        sets = re.findall(r"--set (\S+)", block)
        done = helm("template", "leads", CHART, *(part for it in sets for part in ("--set", it)))
        self.assertEqual(done.returncode, 0, done.stderr)
        wanted = dict(it.split("=", 1) for it in sets)
        self.assertIn(f'"{wanted["kafka.brokers"]}"', done.stdout)

    def test_the_options_in_the_text_are_taken(self):
        for page in PAGES:
            for given in re.findall(r"`--set ([^`\s]+)`", read(page)):
                values = VALUES / "minimal.yaml"
                done = helm("template", "leads", CHART, "--values", values, "--set", given)
                self.assertEqual(done.returncode, 0, f"{page}: {given}: {done.stderr}")

    def test_the_api_can_stay_behind_in_an_upgrade(self):
        objects = render("minimal", "--set", "api.image.tag=OLD")
        tags = {name: pod["containers"][0]["image"].rsplit(":")[-1] for name, pod in pods(objects)}
        self.assertEqual({name for name, tag in tags.items() if tag == "OLD"}, {"shop-leads-api"})
        self.assertEqual(len(set(tags.values())), 2)

    def test_helm_waits_longer_than_a_job_may_take(self):
        deadline = yaml.safe_load((CHART / "values.yaml").read_text())["jobs"]["deadlineSeconds"]
        for page in PAGES:
            for minutes in re.findall(r"--timeout (\d+)m", read(page)):
                self.assertGreater(int(minutes) * 60, deadline, page)

    def test_what_helm_says_in_the_end_names_what_is_there(self):
        values = VALUES / "minimal.yaml"
        done = helm("install", "shop", CHART, "--namespace", "web", "--dry-run=client", "--values", values)
        self.assertEqual(done.returncode, 0, done.stderr)
        said = done.stdout.split("NOTES:")[1]
        names = {name for name, _ in pods(render())}
        [api] = re.findall(r"deploy/(\S+) --", said)
        [consumer] = re.findall(r"(\S+)-0 --", said)
        self.assertLessEqual({api, consumer}, names)

    def test_the_shell_can_read_the_commands(self):
        for page in PAGES:
            for block in blocks(page, ""):
                if block.startswith("["):
                    continue
                done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, f"{page}: {block}{done.stderr}")


if __name__ == "__main__":
    unittest.main()
