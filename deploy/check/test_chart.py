"""The chart: rendered, held to the schemas of Kubernetes, and to what matters here."""

import re
import unittest

import kubernetes_validate
import yaml
from kit import CHART, SETS, VALUES, environment, helm, known, load, one, pods, read, refused, render, start, version

# The oldest that Chart.yaml takes, and the newest whose schemas are here.
KUBERNETES = ["1.29", "1.37"]
OTHERS = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
HPA = ("--set", "consumer.autoscaling.kind=hpa")
RENDERED = [(values, ()) for values in SETS] + [("minimal", HPA)]


def every():
    """What each set makes, with what it is called."""
    return [(" ".join([values, *options]), render(values, *options)) for values, options in RENDERED]


def every_pod():
    return [(f"{label}: {name}", pod) for label, objects in every() for name, pod in pods(objects)]


class Rendered(unittest.TestCase):
    def test_helm_lints_every_set(self):
        for values in SETS:
            done = helm("lint", "--strict", CHART, "--values", VALUES / f"{values}.yaml")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_kubernetes_schemas_take_every_object(self):
        for label, objects in every():
            with self.subTest(label):
                for it in objects:
                    if it["kind"] in OTHERS:
                        continue
                    for at in KUBERNETES:
                        with self.subTest(kind=it["kind"], name=it["metadata"]["name"], kubernetes=at):
                            kubernetes_validate.validate(it, at, strict=True)

    def test_nothing_is_rendered_twice(self):
        for label, objects in every():
            with self.subTest(label):
                names = [(it["kind"], it["metadata"]["name"]) for it in objects]
                self.assertEqual(len(names), len(set(names)), names)

    def test_a_pod_may_do_nothing_that_it_needs_not(self):
        for label, pod in every_pod():
            with self.subTest(label):
                self.assertFalse(pod["automountServiceAccountToken"])
                self.assertFalse(pod["enableServiceLinks"])
                security = pod["securityContext"]
                self.assertTrue(security["runAsNonRoot"])
                self.assertEqual(security["seccompProfile"]["type"], "RuntimeDefault")
                for container in pod["containers"]:
                    self.assertEqual(
                        container["securityContext"],
                        {
                            "allowPrivilegeEscalation": False,
                            "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]},
                        },
                    )
                    for bound in ("requests", "limits"):
                        self.assertIn("memory", container["resources"][bound], label)
                    self.assertIn("cpu", container["resources"]["requests"])

    def test_the_user_is_the_images(self):
        user = int(re.search(r"^USER (\d+)", read("Dockerfile"), re.MULTILINE)[1])
        for label, pod in every_pod():
            with self.subTest(label):
                self.assertEqual(pod["securityContext"]["runAsUser"], user)

    def test_every_mount_has_its_secret(self):
        for label, pod in every_pod():
            with self.subTest(label):
                volumes = {it["name"]: it["secret"]["secretName"] for it in pod.get("volumes", [])}
                for container in pod["containers"]:
                    mounts = {it["name"]: it["mountPath"] for it in container.get("volumeMounts", [])}
                    self.assertEqual(set(mounts), set(volumes), label)
                    files = [value for value in environment(container).values() if str(value).startswith("/etc/leads/")]
                    for file in files:
                        self.assertTrue(any(file.startswith(f"{path}/") for path in mounts.values()), file)
                    # No mount without a variable that points into it.
                    self.assertTrue(all(any(file.startswith(path) for file in files) for path in mounts.values()), label)

    def test_probes_ask_ports_that_are_there(self):
        for label, pod in every_pod():
            with self.subTest(label):
                for container in pod["containers"]:
                    ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
                    listen = {
                        int(value.rsplit(":", 1)[1])
                        for variable, value in environment(container).items()
                        if variable.endswith("_LISTEN")
                    }
                    self.assertEqual(set(ports.values()), listen, label)
                    if container["args"] not in (["serve"], ["run"]):
                        continue
                    paths = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
                    for probe, path in paths.items():
                        asked = container[probe]["httpGet"]
                        self.assertEqual(asked["path"], path)
                        self.assertIn(asked["port"], ports)
                        tls = asked["port"] == "api" and "API_TLS_CERT" in environment(container)
                        self.assertEqual(asked.get("scheme", "HTTP"), "HTTPS" if tls else "HTTP", probe)

    def test_services_and_policies_meet_their_pods(self):
        for label, objects in every():
            with self.subTest(label):
                labels = {
                    it["metadata"]["name"]: it["spec"]["template"]["metadata"]["labels"]
                    for it in objects
                    if it["kind"] in ("Deployment", "StatefulSet", "Job")
                } | {it["metadata"]["name"]: it["metadata"]["labels"] for it in objects if it["kind"] == "Pod"}
                for it in objects:
                    selector = {
                        "Service": lambda spec: spec["selector"],
                        "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
                        "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
                    }.get(it["kind"])
                    if selector:
                        wanted = selector(it["spec"]).items()
                        found = [name for name, has in labels.items() if wanted <= has.items()]
                        self.assertEqual(len(found), 1, (it["kind"], it["metadata"]["name"], found))


class Settings(unittest.TestCase):
    def test_the_binaries_know_every_variable(self):
        commands = {
            "serve": ("leads-api", ["serve"], ["keys", "create"]),
            "run": ("leads-consumer", ["run"], ["doctor"]),
            "topics": ("leads-consumer", ["topics"]),
            "migrate": ("leads-consumer", ["migrate"]),
            "doctor": ("leads-consumer", ["doctor"]),
        }
        seen = set()
        for values, options in RENDERED:
            for name, pod in pods(render(values, *options)):
                [container] = pod["containers"]
                [command] = container["args"]
                binary, *helps = commands[command]
                seen.add(command)
                self.assertIn(f"/{binary}:", f"/{container['image']}", name)
                names = set().union(*(known(binary, *it) for it in helps))
                given = set(environment(container))
                free = {it for it in given if it.startswith(("KAFKA_", "OTEL_"))}
                self.assertLessEqual(given - free, names, f"{values}: {name}")
        self.assertEqual(seen, set(commands))

    def test_the_schema_takes_the_variables_that_no_value_sets(self):
        schema = yaml.safe_load((CHART / "values.schema.json").read_text())["properties"]
        objects = render("everything")
        for component, kind, binary, command in [
            ("api", "Deployment", "leads-api", "serve"),
            ("consumer", "StatefulSet", "leads-consumer", "run"),
        ]:
            [container] = one(objects, kind)["spec"]["template"]["spec"]["containers"]
            taken = set(schema[component]["properties"]["env"]["properties"])
            of_values = set(environment(container)) - {"MAX_STREAMS", "DLQ_MAX"}
            self.assertEqual(taken, known(binary, command) - of_values, component)

    def test_the_binaries_take_the_values(self):
        secrets = {
            "DATABASE_URL": "postgres://leads:x@postgres:5432/leads",
            "KAFKA_SASL_USERNAME": "leads",
            "KAFKA_SASL_PASSWORD": "x",
            "KAFKA_GROUP_INSTANCE_ID": "shop-leads-consumer-0",
        }
        for values in SETS:
            objects = render(values)
            for kind, binary, command in [
                ("Deployment", "leads-api", "serve"),
                ("StatefulSet", "leads-consumer", "run"),
            ]:
                [container] = one(objects, kind)["spec"]["template"]["spec"]["containers"]
                given = environment(container)
                given = {name: given[name] or secrets[name] for name in given}
                start(binary, command, given)

    def test_every_value_has_a_default_to_read(self):
        def compare(schema, values, path):
            properties = schema.get("properties")
            if path in ("global", "api.env", "consumer.env") or not properties:
                return
            names = {"global"} & set(properties) if not path else set()
            self.assertEqual(set(properties) - names, set(values), path)
            for name in set(properties) - names:
                compare(properties[name], values[name], f"{path}.{name}".lstrip("."))

        schema = yaml.safe_load((CHART / "values.schema.json").read_text())
        compare(schema, load("deploy/helm/leads/values.yaml"), "")

    def test_the_version_is_the_workspaces(self):
        chart = load("deploy/helm/leads/Chart.yaml")
        self.assertEqual((chart["version"], chart["appVersion"]), (version(), version()))
        for _, pod in pods(render()):
            for container in pod["containers"]:
                self.assertTrue(container["image"].endswith(f":{version()}"), container["image"])
        images = {it["containers"][0]["image"] for _, it in pods(render("everything"))}
        registry = "registry.example.com/leads/"
        self.assertEqual(images, {f"{registry}leads-api:1.2.3", f"{registry}leads-consumer:1.2.3"})

    def test_the_partitions_are_the_binarys(self):
        default = re.search(r"DEFAULT_PARTITIONS: u32 = (\d+)", read("shared/src/topic.rs"))[1]
        self.assertEqual(load("deploy/helm/leads/values.yaml")["kafka"]["topics"]["partitions"], int(default))


class Refused(unittest.TestCase):
    def test_what_is_missing_is_named(self):
        self.assertIn("kafka.brokers: set it", refused(None))
        self.assertIn("database.secretName: name a Secret", refused(None, "--set", "kafka.brokers=k:9092"))

    def test_names_and_types_that_are_not_there(self):
        for option, words in {
            "kafka.broker=k:9092": "/kafka': additional properties 'broker' not allowed",
            "api.replicas=two": "/api/replicas': got string, want integer",
            "api.env.MAX_STREAM=1": "/api/env': additional properties 'MAX_STREAM' not allowed",
            "consumer.env.KAFKA_ACKS=1": "/consumer/env': additional properties 'KAFKA_ACKS' not allowed",
            "kafka.brokers=kafka": "/kafka/brokers",
            "kafka.securityProtocol=TLS": "value must be one of 'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT', 'SASL_SSL'",
            "kafka.topics.replication=0": "/kafka/topics/replication",
            "consumer.autoscaling.kind=lag": "value must be one of 'none', 'hpa', 'keda'",
            "traces.ratio=2": "/traces/ratio': maximum",
            "surprise=1": "additional properties 'surprise' not allowed",
        }.items():
            with self.subTest(option=option):
                self.assertIn(words, refused("minimal", "--set", option))

    def test_values_that_contradict_each_other(self):
        for options, words in [
            (["consumer.replicas=13"], "with 12 partitions only 12 consumers have work"),
            (["consumer.autoscaling.kind=keda", "consumer.autoscaling.maxReplicas=13"], "maxReplicas is 13"),
            (["consumer.autoscaling.minReplicas=7"], "consumer.autoscaling: minReplicas is above maxReplicas"),
            (["api.autoscaling.minReplicas=11"], "api.autoscaling: minReplicas is above maxReplicas"),
            (["kafka.securityProtocol=SASL_SSL"], "SASL_SSL needs a Secret"),
            (["kafka.sasl.secretName=x"], "of no use with PLAINTEXT"),
            (["kafka.ssl.caSecretName=x"], "kafka.ssl is of no use with PLAINTEXT"),
        ]:
            with self.subTest(options=options):
                self.assertIn(words, refused("minimal", "--set", ",".join(options)))


if __name__ == "__main__":
    unittest.main()
