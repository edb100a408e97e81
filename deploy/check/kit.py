"""What the checks share: the repository, rendering the chart, what the binaries know."""

import functools
import os
import pathlib
import re
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/leads"
VALUES = ROOT / "deploy/check/values"
SETS = sorted(path.stem for path in VALUES.glob("*.yaml"))
BINARIES = pathlib.Path(os.environ["DEPLOY_BINARIES"])


def read(name):
    return (ROOT / name).read_text()


def load(name):
    return yaml.safe_load(read(name))


def version():
    """The workspace's."""
    return re.search(r'^version = "(.*)"', read("Cargo.toml"), re.MULTILINE)[1]


def helm(*args):
    return subprocess.run([os.environ["DEPLOY_HELM"], *map(str, args)], capture_output=True, text=True)


def template(values="minimal", *options):
    given = ["--values", VALUES / f"{values}.yaml"] if values else []
    return helm("template", "shop", CHART, "--namespace", "web", *given, *options)


@functools.cache
def render(values="minimal", *options):
    """What a set of values makes: a list of objects."""
    done = template(values, *options)
    assert done.returncode == 0, f"{values}: {done.stderr}"
    return [it for it in yaml.safe_load_all(done.stdout) if it]


def refused(values, *options):
    """What Helm says against values."""
    done = template(values, *options)
    assert done.returncode != 0, f"{values} {options} was taken"
    return done.stderr


def one(objects, kind, name=None):
    found = [it for it in objects if it["kind"] == kind and name in (None, it["metadata"]["name"])]
    assert len(found) == 1, f"{kind} {name}: {len(found)}"
    return found[0]


def pods(objects):
    """Name and pod of everything that runs one."""
    for it in objects:
        if it["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield it["metadata"]["name"], it["spec"]["template"]["spec"]
        elif it["kind"] == "Pod":
            yield it["metadata"]["name"], it["spec"]


def container(objects, kind, name=None):
    it = one(objects, kind, name)
    [only] = it["spec"]["template"]["spec"]["containers"]
    return only


def environment(container):
    """Variables with their values; None where the value comes from elsewhere."""
    return {it["name"]: it.get("value") for it in container["env"]}


@functools.cache
def known(binary, *command):
    """The variables in the --help of a command."""
    done = subprocess.run([BINARIES / binary, *command, "--help"], capture_output=True, text=True, check=True)
    return frozenset(re.findall(r"\[env:\s+([A-Z_]+)", done.stdout))


def env_file(name):
    """Variables of a file as systemd reads it, those that are commented out as well."""
    return dict(re.findall(r"^#?([A-Z_]+)=(.*)$", read(name), re.MULTILINE))


def start(binary, command, environment):
    """Starts a process whose port can't be had, and gives what it says: everything else is checked before.

    Variables that name files which are not here are left out.
    """
    given = {k: v for k, v in environment.items() if v is not None and not v.startswith("/etc/leads/")}
    port = "API_LISTEN" if binary == "leads-api" else "METRICS_LISTEN"
    given |= {port: "192.0.2.1:1", "PATH": os.environ["PATH"]}
    done = subprocess.run([BINARIES / binary, command], env=given, capture_output=True, text=True, timeout=60)
    said = done.stdout + done.stderr
    assert done.returncode != 0 and port in said and "192.0.2.1:1" in said, said
    return said
