"""Every manifest is one that a strict API server takes, and names only what this repository has."""

import copy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.load import load_config
from pipeline.config.nightly import NightlyConfig

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy" / "k8s" / "components" / "cronjob"))

import create_rayjob

OVERLAYS = sorted(folder.name for folder in (ROOT / "deploy" / "k8s" / "overlays").iterdir())
CLOUDS = [name for name in OVERLAYS if name.startswith("cloud")]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
SETTINGS = "/etc/unfold/restore_nightly.yaml"
Manifest = dict[str, Any]
Render = Callable[[str], list[Manifest]]
Judge = Callable[[Manifest], list[str]]


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def of_kuberay(manifest: Manifest) -> bool:
    return str(manifest["apiVersion"]).startswith("ray.io/")


def jobs_of(manifests: list[Manifest]) -> list[Manifest]:
    """The specs of RayJobs, those of a schedule too."""
    specs = [job["spec"] for job in of_kind(manifests, "RayJob")]
    return specs + [cron["spec"]["jobTemplate"] for cron in of_kind(manifests, "RayCronJob")]


def clusters(manifests: list[Manifest]) -> list[Manifest]:
    standing = [cluster["spec"] for cluster in of_kind(manifests, "RayCluster")]
    return [job["rayClusterSpec"] for job in jobs_of(manifests)] + standing


def groups(manifests: list[Manifest]) -> dict[str, Manifest]:
    (cluster,) = clusters(manifests)
    return {"head": cluster["headGroupSpec"], **{group["groupName"]: group for group in cluster["workerGroupSpecs"]}}


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod that comes of the manifests, by what it is for."""
    for name, group in groups(manifests).items():
        yield name, group["template"]["spec"]
    for job in jobs_of(manifests):
        yield "submitter", job["submitterPodTemplate"]["spec"]
    for cron in of_kind(manifests, "CronJob"):
        yield "schedule", cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def submitters(manifests: list[Manifest]) -> list[dict[str, str]]:
    """The labels of the pods that submit; KubeRay adds none to those of its Jobs."""
    templates = [job["submitterPodTemplate"] for job in jobs_of(manifests)]
    schedules = [cron["spec"]["jobTemplate"]["spec"]["template"] for cron in of_kind(manifests, "CronJob")]
    templates += [one for one in schedules if "RAY_API_SERVER_ADDRESS" in yaml.safe_dump(one["spec"])]
    return [template.get("metadata", {}).get("labels", {}) for template in templates]


def mounted(manifests: list[Manifest], pod: Manifest, folder: str) -> dict[str, str]:
    """The files that the pod's first container finds in the folder."""
    (name,) = [mount["name"] for mount in pod["containers"][0]["volumeMounts"] if mount["mountPath"] == folder]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == name]
    configs = {config["metadata"]["name"]: config["data"] for config in of_kind(manifests, "ConfigMap")}
    files: dict[str, str] = configs[volume["configMap"]["name"]]
    return files


def settings(manifests: list[Manifest], folder: Path) -> NightlyConfig:
    (config,) = [m for m in of_kind(manifests, "ConfigMap") if m["metadata"]["name"] == "unfold-settings"]
    file = folder / Path(SETTINGS).name
    file.write_text(config["data"][file.name], encoding="utf-8")
    return load_config(NightlyConfig, file)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_strict_api_server_takes_every_manifest(overlay: str, rendered: Render, complaints: Judge) -> None:
    manifests = [manifest for manifest in rendered(overlay) if not of_kuberay(manifest)]
    assert of_kind(manifests, "NetworkPolicy")
    assert [said for manifest in manifests for said in complaints(manifest)] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_with_kuberays_definitions_it_takes_kuberays_too(overlay: str, rendered: Render, complaints: Judge) -> None:
    manifests = [manifest for manifest in rendered(overlay) if of_kuberay(manifest)]
    assert of_kind(manifests, "RayJob", "RayCluster", "RayCronJob")
    assert [said for manifest in manifests for said in complaints(manifest)] == []


def _set(manifest: Manifest, path: str, value: object) -> Manifest:
    changed = copy.deepcopy(manifest)
    place: Any = changed
    *above, last = path.split(".")
    for name in above:
        place = place[int(name) if name.isdigit() else name]
    place[last] = value
    return changed


GROUP = "spec.rayClusterSpec.workerGroupSpecs.0"


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("RayJob", "spec.backofLimit", 1),
        ("RayJob", "spec.submissionMode", 3),
        ("RayJob", f"{GROUP}.minReplica", 0),
        ("RayJob", f"{GROUP}.maxReplicas", "four"),
        ("RayJob", f"{GROUP}.template.spec.containers.0.imagePolicy", "Always"),
        ("RayJob", "spec.rayClusterSpec.authOptions.mode", "secret"),
        ("NetworkPolicy", "spec.ingres", []),
        ("CronJob", "spec.schedule", 3),
        ("CronJob", "spec.jobTemplate.spec.template.spec.containers.0.imagePolicy", "Always"),
        ("PriorityClass", "priority", 3),
        ("Role", "rule", []),
    ],
)
def test_a_mistake_is_refused(kind: str, path: str, value: object, rendered: Render, complaints: Judge) -> None:
    manifest = of_kind(rendered("cloud"), kind)[0]
    assert complaints(_set(manifest, path, value))


@pytest.mark.parametrize(("group", "kind"), [("ray.io/v1", "RayJbo"), ("batch/v1", "CronJbo")])
def test_a_kind_that_nobody_knows_is_refused(group: str, kind: str, complaints: Judge) -> None:
    assert complaints({"apiVersion": group, "kind": kind, "metadata": {"name": "a"}})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_the_operator_refuses_later_is_not_asked_of_it(overlay: str, rendered: Render) -> None:
    manifests = rendered(overlay)
    for manifest in manifests:
        most = {"RayJob": 47, "RayCluster": 53, "RayCronJob": 36, "CronJob": 36}.get(manifest["kind"], 63)
        assert len(manifest["metadata"]["name"]) <= most
    for job in jobs_of(manifests):
        assert job["shutdownAfterJobFinishes"], "ttl and suspend ask for it"
        assert "deletionStrategy" not in job
        assert not {"networkPolicy", "tlsOptions", "historyServerOptions"} & job["rayClusterSpec"].keys()
        assert "runtimeEnvYAML" not in job, "everybody could read it"
        assert "entrypointNumCpus" not in job, "the driver would leave the head"
    for name, group in groups(manifests).items():
        assert group["template"]["spec"]["restartPolicy"] == "Never", "as the autoscaler's v2 asks"
        if name != "head":
            assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_attempts_of_a_schedule_end_before_its_next_firing(overlay: str, rendered: Render) -> None:
    day = 24 * 3600
    for job in jobs_of(rendered(overlay)):
        assert (job["backoffLimit"] + 1) * job["activeDeadlineSeconds"] < day
    for cron in of_kind(rendered(overlay), "CronJob"):
        assert cron["spec"]["schedule"] == "0 1 * * *"
        assert cron["spec"]["concurrencyPolicy"] == "Forbid"
        assert cron["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"] < day
    for cron in of_kind(rendered(overlay), "RayCronJob"):
        assert cron["spec"]["schedule"] == "0 1 * * *"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_programs_settings_and_scripts_are_there(overlay: str, rendered: Render, tmp_path: Path) -> None:
    manifests = rendered(overlay)
    commands = [shlex.split(job["entrypoint"]) for job in jobs_of(manifests)]
    for cron in of_kind(manifests, "CronJob"):
        pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        python, script, *rest = [*container["command"], *container.get("args", ())]
        assert python == "python"
        assert Path(script).name in mounted(manifests, pod, str(Path(script).parent))
        if rest[0] == "python":
            commands.append(rest)
        else:
            assert rest == [job["metadata"]["name"] for job in of_kind(manifests, "RayJob")]
    assert commands
    for python, program, *options in commands:
        assert python == "python"
        assert (ROOT / program).is_file()
        assert options == ["--config", SETTINGS]
    settings(manifests, tmp_path)
    head = groups(manifests)["head"]["template"]["spec"]
    assert Path(SETTINGS).name in mounted(manifests, head, str(Path(SETTINGS).parent))
    for _, pod in pods(manifests):
        assert {c.get("workingDir", "/app") for c in pod["containers"]} == {"/app"}, "where the Dockerfile puts jobs/"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings_fit_the_cluster_and_what_ray_makes_of_exit_codes(
    overlay: str, rendered: Render, tmp_path: Path
) -> None:
    config, made = settings(rendered(overlay), tmp_path), groups(rendered(overlay))
    assert config.run.max_failed_share == 1.0, "else bad images would start the job again and again"
    if "gpu" not in made:
        assert config.run.task_resource is None
        return
    assert config.restore.gpus == 1, "none is there when the run begins"
    assert config.restore.replicas.max == made["gpu"]["maxReplicas"]
    assert made["gpu"]["minReplicas"] == 0
    cpus = int(made["tasks"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"])
    booked = (config.read.tasks or 0) * config.read.cpus + (config.write.tasks or 0) * config.write.cpus
    assert booked == made["tasks"]["maxReplicas"] * cpus, "as many tasks as all task nodes hold"
    assert [name for name, group in made.items() if config.run.task_resource in group.get("resources", {})] == ["tasks"]
    mounts = made["gpu"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert config.restore.scratch in [mount["mountPath"] for mount in mounts]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rays_autoscaler_reads_the_groups_as_meant(overlay: str, rendered: Render) -> None:
    """Ray's own reading of a KubeRay group; it speaks of what a node of it would have."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _get_ray_resources_from_group_spec

    read = {
        name: _get_ray_resources_from_group_spec(group, is_head=name == "head")
        for name, group in groups(rendered(overlay)).items()
    }
    assert read["head"]["CPU"] == 0
    assert "GPU" not in read["head"]
    assert read["tasks"]["CPU"] >= 2
    if overlay in CLOUDS:
        assert read["tasks"]["unfold_tasks"] == 1000
        assert read["gpu"]["GPU"] == 1
        assert read["gpu"]["CPU"] >= 1
        assert "unfold_tasks" not in read["gpu"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_targets_of_the_dockerfile_at_this_version(overlay: str, rendered: Render) -> None:
    manifests = rendered(overlay)
    for name, pod in pods(manifests):
        for container in pod["containers"]:
            version, _, target = container["image"].rpartition(":")[2].partition("-")
            assert version == VERSION
            assert target == ("gpu" if name == "gpu" else "head")
            assert f" AS {target}\n" in DOCKERFILE
    locked = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert {f"ray=={cluster['rayVersion']}" for cluster in clusters(manifests)} <= set(locked)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_keep_to_the_restricted_profile_and_hold_no_secret(overlay: str, rendered: Render) -> None:
    for name, pod in pods(rendered(overlay)):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all({"emptyDir", "configMap"} & volume.keys() for volume in pod.get("volumes", ()))
        needs_the_api = name in ("head", "schedule") and "serviceAccountName" in pod
        assert needs_the_api or pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            resources = container["resources"]
            assert resources["limits"]["memory"] == resources["requests"]["memory"]
            assert resources["limits"].get("nvidia.com/gpu") == resources["requests"].get("nvidia.com/gpu")
            for variable in container.get("env", ()):
                assert "value" not in variable or "TOKEN" not in variable["name"]
    for config in of_kind(rendered(overlay), "ConfigMap"):
        assert "SECRET" not in yaml.safe_dump(config["data"]).upper().replace("SECRETS/KUBERNETES.IO", "")
    assert not of_kind(rendered(overlay), "Secret")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_memory_holds_the_object_store_and_disk_holds_the_volumes(overlay: str, rendered: Render) -> None:
    units = {"Mi": 2**20, "Gi": 2**30}

    def size(text: str) -> float:
        return float(text[:-2]) * units[text[-2:]]

    for group in groups(rendered(overlay)).values():
        pod = group["template"]["spec"]
        limits = pod["containers"][0]["resources"]["limits"]
        assert int(group["rayStartParams"]["object-store-memory"]) <= size(limits["memory"]) / 3
        volumes = sum(size(v["emptyDir"]["sizeLimit"]) for v in pod["volumes"] if "emptyDir" in v)
        assert volumes < size(limits["ephemeral-storage"])


@pytest.mark.parametrize("overlay", CLOUDS)
def test_only_gpu_workers_are_on_spot_machines(overlay: str, rendered: Render) -> None:
    kinds = {
        name: group["template"]["spec"]["nodeSelector"]["karpenter.sh/capacity-type"]
        for name, group in groups(rendered(overlay)).items()
    }
    assert kinds == {"head": "on-demand", "tasks": "on-demand", "gpu": "spot"}
    tolerated = {t["key"] for t in groups(rendered(overlay))["gpu"]["template"]["spec"]["tolerations"]}
    assert tolerated == {"nvidia.com/gpu", "spot"}
    head = groups(rendered(overlay))["head"]["template"]
    assert head["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert head["spec"]["priorityClassName"] == "unfold-head"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_gets_its_storage_rights_in_one_way(overlay: str, rendered: Render) -> None:
    manifests = rendered(overlay)
    (account,) = [m for m in of_kind(manifests, "ServiceAccount") if m["metadata"]["name"] == "unfold"]
    by_role = "eks.amazonaws.com/role-arn" in account["metadata"].get("annotations", {})
    for group in groups(manifests).values():
        pod = group["template"]["spec"]
        secrets = [s["secretRef"]["name"] for s in pod["containers"][0]["envFrom"] if "secretRef" in s]
        assert secrets == ([] if by_role else ["unfold-s3"])
        assert pod["serviceAccountName"] == "unfold"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_clusters_ask_for_a_token_and_ports_are_those_let_through(overlay: str, rendered: Render) -> None:
    manifests = rendered(overlay)
    assert all(cluster["authOptions"] == {"mode": "token"} for cluster in clusters(manifests))
    named = {
        port["name"]: port["containerPort"]
        for group in groups(manifests).values()
        for port in group["template"]["spec"]["containers"][0]["ports"]
    }
    (policy,) = of_kind(manifests, "NetworkPolicy")
    open_to_others = {port["port"] for rule in policy["spec"]["ingress"] for port in rule.get("ports", ())}
    assert open_to_others == {named["dashboard"], named["metrics"]}
    for group in groups(manifests).values():
        assert group["template"]["metadata"]["annotations"]["prometheus.io/port"] == str(named["metrics"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_that_submits_is_let_to_the_job_server(overlay: str, rendered: Render) -> None:
    manifests = rendered(overlay)
    (policy,) = of_kind(manifests, "NetworkPolicy")
    (rule,) = [rule for rule in policy["spec"]["ingress"] if {"port": 8265, "protocol": "TCP"} in rule.get("ports", ())]
    wanted = [peer["podSelector"]["matchLabels"] for peer in rule["from"] if "podSelector" in peer]
    made = submitters(manifests)
    assert made
    assert all(any(labels.items() <= own.items() for labels in wanted) for own in made)


def test_kueue_admits_the_copies_of_the_template_and_not_the_template(
    tmp_path: Path, rendered: Render, complaints: Judge
) -> None:
    assert rendered("cloud"), "kubectl is there"
    (tmp_path / "k8s").symlink_to(ROOT / "deploy" / "k8s")
    (tmp_path / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        "resources: [k8s/overlays/cloud]\ncomponents: [k8s/components/kueue]\n"
    )
    command = ["kubectl", "kustomize", "--load-restrictor", "LoadRestrictionsNone", str(tmp_path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (template,) = of_kind(list(yaml.safe_load_all(shown)), "RayJob")
    made = create_rayjob.copy(template, "unfold-nightly-1", "uid")
    for job in (template, made):
        assert complaints(job) == []
        assert job["spec"]["suspend"]
    assert "kueue" not in yaml.safe_dump(template["metadata"]), "or it would be admitted"
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "unfold"
    assert made["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"]
    assert made["metadata"]["annotations"] == {"kueue.x-k8s.io/elastic-job": "true"}, "or Kueue refuses one that grows"
    assert made["spec"]["shutdownAfterJobFinishes"], "as Kueue asks"
