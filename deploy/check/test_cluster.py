"""The chart: what it is built for. Order of an upgrade, scaling, the end of a pod, who talks to whom."""

import json
import re
import unittest

import yaml
from kit import SETS, container, environment, load, one, pods, read, render

HPA = ("--set", "consumer.autoscaling.kind=hpa")
HOOK = "helm.sh/hook"


def notes(it):
    return it["metadata"].get("annotations", {})


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


class Upgrades(unittest.TestCase):
    def test_topics_then_tables_then_everything_else(self):
        hooks = [it for it in render() if HOOK in notes(it) and notes(it)[HOOK] != "test"]
        for it in hooks:
            self.assertEqual(notes(it)[HOOK], "pre-install,pre-upgrade")
            self.assertEqual(notes(it)["helm.sh/hook-delete-policy"], "before-hook-creation")
        hooks.sort(key=lambda it: int(notes(it)["helm.sh/hook-weight"]))
        kinds = [(it["kind"], it["metadata"]["name"]) for it in hooks]
        jobs = ["shop-leads-topics", "shop-leads-migrate"]
        self.assertEqual(sorted(kinds[:2]), sorted(("NetworkPolicy", job) for job in jobs))
        self.assertEqual(kinds[2:], [("Job", job) for job in jobs])

    def test_a_job_needs_nothing_that_the_chart_makes(self):
        for values in SETS:
            objects = render(values)
            for name in ("topics", "migrate"):
                spec = one(objects, "Job", f"shop-leads-{name}")["spec"]
                pod = spec["template"]["spec"]
                self.assertEqual(pod["serviceAccountName"], "default")
                self.assertEqual(pod["restartPolicy"], "Never")
                self.assertGreater(spec["ttlSecondsAfterFinished"], 0)
                [rule] = spec["podFailurePolicy"]["rules"]
                self.assertEqual(rule["onExitCodes"]["values"], [2])
                self.assertEqual(rule["onExitCodes"]["containerName"], pod["containers"][0]["name"])
                for variable in pod["containers"][0]["env"]:
                    self.assertNotIn("configMapKeyRef", variable.get("valueFrom", {}))

    def test_jobs_can_be_left_out(self):
        objects = render("minimal", "--set", "jobs.topics=false,jobs.migrate=false")
        self.assertFalse([it for it in objects if it["kind"] == "Job"])
        self.assertFalse([it for it in objects if HOOK in notes(it) and notes(it)[HOOK] != "test"])

    def test_doctor_is_the_charts_test(self):
        doctor = one(render(), "Pod")
        self.assertEqual(notes(doctor)[HOOK], "test")
        self.assertEqual(doctor["spec"]["containers"][0]["args"], ["doctor"])

    def test_consumers_halted_by_a_newer_schema_hold_no_upgrade_up(self):
        self.assertEqual(one(render(), "StatefulSet")["spec"]["podManagementPolicy"], "Parallel")

    def test_a_consumer_keeps_its_name(self):
        [name] = [
            it["valueFrom"]["fieldRef"]["fieldPath"]
            for it in container(render(), "StatefulSet")["env"]
            if it["name"] == "KAFKA_GROUP_INSTANCE_ID"
        ]
        self.assertEqual(name, "metadata.name")


class TheEnd(unittest.TestCase):
    def test_a_pod_has_the_time_that_its_end_may_take(self):
        for values in SETS:
            pod = one(render(values), "Deployment")["spec"]["template"]["spec"]
            given = environment(pod["containers"][0])
            grace, publish, read_wait = (
                seconds(given[name]) for name in ("SHUTDOWN_GRACE", "PUBLISH_TIMEOUT", "READ_WAIT")
            )
            # Requests that were let in; the producer's flush; last answers, traces, uses of keys.
            longest = grace + (publish + 2 * read_wait) + publish + 5
            self.assertGreater(pod["terminationGracePeriodSeconds"], longest, values)
            # The balancer has seen it: two failures of the probe.
            probe = pod["containers"][0]["readinessProbe"]
            self.assertGreater(grace, probe["periodSeconds"] * probe["failureThreshold"])

    def test_evictions_go_one_by_one_and_never_wait_for_the_broken(self):
        objects = render("single")
        for name in ("api", "consumer"):
            spec = one(objects, "PodDisruptionBudget", f"shop-leads-{name}")["spec"]
            self.assertEqual(spec["maxUnavailable"], 1)
            self.assertEqual(spec["unhealthyPodEvictionPolicy"], "AlwaysAllow")


class Scaling(unittest.TestCase):
    def test_consumers_are_never_more_than_partitions(self):
        for values in SETS:
            objects = render(values)
            topics = environment(container(objects, "Job", "shop-leads-topics"))
            consumers = one(objects, "StatefulSet")["spec"]
            scaled = [it for it in objects if it["kind"] == "ScaledObject"]
            most = scaled[0]["spec"]["maxReplicaCount"] if scaled else consumers["replicas"]
            self.assertLessEqual(most, int(topics["TOPIC_PARTITIONS"]), values)

    def test_an_autoscaler_has_the_replicas_to_itself(self):
        objects = render("everything")
        for kind in ("Deployment", "StatefulSet"):
            self.assertNotIn("replicas", one(objects, kind)["spec"])
        self.assertIn("replicas", one(render(), "Deployment")["spec"])

    def test_the_api_scales_on_cpu(self):
        spec = one(render("everything"), "HorizontalPodAutoscaler")["spec"]
        self.assertEqual(spec["scaleTargetRef"]["kind"], "Deployment")
        self.assertEqual(spec["metrics"][0]["resource"]["name"], "cpu")

    def test_consumers_scale_on_lag_either_way(self):
        hpa = one(render("minimal", *HPA), "HorizontalPodAutoscaler")["spec"]
        keda = one(render("everything"), "ScaledObject")
        self.assertEqual(keda["apiVersion"], "keda.sh/v1alpha1")
        for target in (hpa["scaleTargetRef"], keda["spec"]["scaleTargetRef"]):
            self.assertEqual((target["kind"], target["name"]), ("StatefulSet", "shop-leads-consumer"))
        scaling = load("deploy/helm/leads/values.yaml")["consumer"]["autoscaling"]
        external = hpa["metrics"][0]["external"]
        self.assertEqual(external["metric"]["name"], scaling["metric"])
        self.assertEqual(external["target"]["averageValue"], str(scaling["targetLag"]))
        [trigger] = keda["spec"]["triggers"]
        self.assertEqual(trigger["type"], "prometheus")
        self.assertEqual(trigger["metadata"]["query"], scaling["query"])
        self.assertTrue(all(isinstance(value, str) for value in trigger["metadata"].values()))
        # The README's rule for the adapter makes the very metric, of the HPA's own namespace.
        page = read("deploy/helm/leads/README.md")
        [text] = [it for it in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "external:" in it]
        [rule] = yaml.safe_load(text)["rules"]["external"]
        self.assertEqual(rule["name"]["as"], scaling["metric"])
        self.assertEqual(rule["resources"]["overrides"], {"namespace": {"resource": "namespace"}})
        self.assertIn("<<.LabelMatchers>>", rule["metricsQuery"])


class Network(unittest.TestCase):
    def egress(self, objects, name):
        rules = one(objects, "NetworkPolicy", f"shop-leads-{name}")["spec"]["egress"]
        return {port["port"]: rule.get("to") for rule in rules for port in rule["ports"]}

    def test_each_pod_reaches_what_it_needs_and_no_more(self):
        objects = render()
        needs = {"api": {53, 9092, 5432}, "consumer": {53, 9092, 5432}, "topics": {53, 9092}, "migrate": {53, 5432}}
        for name, ports in needs.items():
            self.assertEqual(set(self.egress(objects, name)), ports, name)
        self.assertEqual(
            {name for name, _ in pods(objects)},
            {it["metadata"]["name"] for it in objects if it["kind"] == "NetworkPolicy"},
        )

    def test_ports_come_from_the_addresses(self):
        objects = render("everything")
        self.assertEqual(set(self.egress(objects, "api")), {53, 9094, 9095, 6432, 443})
        self.assertEqual(self.egress(objects, "api")[9095], [{"ipBlock": {"cidr": "10.0.0.0/8"}}])
        given = render("minimal", "--set", "traces.endpoint=http://collector:4318,networkPolicy.kafkaPorts={9092,9098}")
        self.assertEqual(set(self.egress(given, "consumer")), {53, 9092, 9098, 5432, 4318})

    def test_only_the_api_and_the_metrics_can_be_reached(self):
        objects = render("everything")
        ingress = {
            name: one(objects, "NetworkPolicy", f"shop-leads-{name}")["spec"]["ingress"]
            for name in ("api", "consumer", "topics", "migrate", "doctor")
        }
        ports = {name: [port["port"] for rule in rules for port in rule["ports"]] for name, rules in ingress.items()}
        self.assertEqual(
            ports, {"api": ["api", "metrics"], "consumer": ["metrics"], "topics": [], "migrate": [], "doctor": []}
        )
        self.assertTrue(all("from" in rule for rules in ingress.values() for rule in rules))

    def test_metrics_are_not_where_the_api_is(self):
        ports = {port["name"] for port in one(render(), "Service", "shop-leads-api")["spec"]["ports"]}
        self.assertEqual(ports, {"api"})


class Secrets(unittest.TestCase):
    def test_the_chart_has_none_of_its_own(self):
        for values in SETS:
            objects = render(values)
            self.assertFalse([it for it in objects if it["kind"] == "Secret"])
            for _, pod in pods(objects):
                for variable in pod["containers"][0]["env"]:
                    if re.search("PASSWORD|USERNAME|DATABASE_URL", variable["name"]):
                        self.assertIn("secretKeyRef", variable["valueFrom"], variable["name"])

    def test_a_managed_kafka_is_reached_by_tls_and_sasl(self):
        objects = render("managed")
        for kind, name in [("Deployment", None), ("StatefulSet", None), ("Job", "shop-leads-topics")]:
            given = environment(container(objects, kind, name))
            self.assertEqual(given["KAFKA_SECURITY_PROTOCOL"], "SASL_SSL")
            self.assertEqual(given["KAFKA_SASL_MECHANISM"], "SCRAM-SHA-512")
            self.assertEqual(given["KAFKA_SSL_CA_LOCATION"], "/etc/leads/kafka-ca/ca.crt")
            self.assertEqual(given["KAFKA_SOCKET_CONNECTION_SETUP_TIMEOUT_MS"], "10000")
        migrate = environment(container(objects, "Job", "shop-leads-migrate"))
        self.assertFalse([name for name in migrate if name.startswith("KAFKA_")])


class Watching(unittest.TestCase):
    def test_alerts_and_dashboard_are_those_of_docs_ops(self):
        objects = render("everything")
        rule = one(objects, "PrometheusRule")
        self.assertEqual(rule["spec"], load("docs/ops/alerts.yaml"))
        self.assertEqual(rule["metadata"]["labels"]["release"], "prometheus")
        board = one(objects, "ConfigMap")
        self.assertEqual(json.loads(board["data"]["leads.json"]), json.loads(read("docs/ops/dashboard.json")))
        self.assertEqual(board["metadata"]["labels"]["grafana_dashboard"], "1")

    def test_both_are_scraped_under_the_names_that_the_alerts_use(self):
        objects = render("everything")
        for name in ("api", "consumer"):
            monitor = one(objects, "ServiceMonitor", f"shop-leads-{name}")["spec"]
            [endpoint] = monitor["endpoints"]
            [job] = endpoint["relabelings"]
            self.assertEqual((job["targetLabel"], job["replacement"]), ("job", f"leads-{name}"))
            wanted = monitor["selector"]["matchLabels"].items()
            [service] = [
                it for it in objects if it["kind"] == "Service" and wanted <= it["metadata"]["labels"].items()
            ]
            self.assertIn(endpoint["port"], [port["name"] for port in service["spec"]["ports"]])
            self.assertTrue(service["spec"]["publishNotReadyAddresses"])


if __name__ == "__main__":
    unittest.main()
