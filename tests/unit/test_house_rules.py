"""Rules of the source that neither ruff nor import-linter can check: length of files, names, arguments by keyword, no sleep."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.syntax import nodes_of, tree_of

ROOT = Path(__file__).parents[2]
LINES = 400
#: Parts in which no file is longer.
SHORT = ("src/moyai", "tests")
ROOMS = sorted({file.relative_to(ROOT / "src/moyai").parts[0] for file in (ROOT / "src/moyai").glob("*/**/*.py")})
#: A folder with so many modules has an order of its own, which import-linter checks.
ORDERED = 5
#: Names and parameters of these are OpenStack's.
OPENSTACKS = ("drivers/cinder/driver.py", "drivers/nova/driver.py", "drivers/octavia/provider.py")
#: Methods whose callers, Python and libraries, hand arguments over by position.
DICTATED = {"__exit__", "__aexit__", "get_command", "request", "_check_quota_met"}


@pytest.mark.parametrize("part", SHORT)
def test_no_file_is_longer_than_the_limit(part: str) -> None:
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text().splitlines())
        for file in (ROOT / part).rglob("*.py")
        if "proto" not in file.parts  # generated
    }
    assert lengths, f"no file in {part}"
    assert {name: lines for name, lines in lengths.items() if lines > LINES} == {}


#: Libraries that start processes or speak to the kernel.
PROCESSES = {"subprocess", "multiprocessing", "pyroute2", "pty"}
#: Folder: why its programs start processes although they are not in ``linux``.
PROGRAMS = {
    "bootstrap/data": "programs for a node that use the standard library alone: moyai is not on the machine yet when they run",
}


def _imported(file: Path) -> set[str]:
    """First parts of the names of all modules that a file imports."""
    names: list[str] = []
    for node in nodes_of(file):
        if isinstance(node, ast.Import):
            names += [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.append(node.module or "")
    return {name.partition(".")[0] for name in names}


def test_only_linux_and_the_programs_for_a_node_start_processes() -> None:
    # import-linter sees packages only, and a folder of programs is none
    found = {
        file.parent.relative_to(ROOT / "src/moyai").as_posix()
        for file in (ROOT / "src/moyai").rglob("*.py")
        if _imported(file) & PROCESSES
    }
    assert {folder for folder in found if folder.partition("/")[0] != "linux"} == set(PROGRAMS)


def test_python_stands_in_files_that_style_and_types_check() -> None:
    others = [one for one in (ROOT / "src").rglob("*") if one.is_file() and one.suffix not in (".py", ".pyi", ".pyc", ".go")]
    assert others, "no data files"
    python = re.compile(rb"^(import \w+|from [\w.]+ import .+|def \w+\(.*|class \w+.*:)$", re.MULTILINE)
    assert [str(one) for one in others if python.search(one.read_bytes())] == []


def test_a_folder_of_many_modules_has_layers_that_name_each_of_them() -> None:
    # programs for a machine import nothing of each other
    packages = [one for one in (ROOT / "src/moyai").glob("**/") if (one / "__init__.py").exists()]
    found: set[str] = set()
    for folder in packages:
        modules = [one for one in folder.iterdir() if one.name not in ("__init__.py", "__main__.py")]
        modules = [one for one in modules if one.suffix == ".py" or (one / "__init__.py").exists()]
        if len(modules) >= ORDERED:
            found.add(".".join(folder.relative_to(ROOT / "src").parts))
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert linter["exclude_type_checking_imports"] is False
    contracts = [one for one in linter["contracts"] if one["type"] == "layers" and one.get("exhaustive")]
    # the rooms themselves have a contract without a container
    assert found - {container for one in contracts for container in one["containers"]} == {"moyai"}


Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(tree: ast.AST, *, of_class: bool = False) -> Iterator[tuple[Function, bool]]:
    """All functions, also those within others, and whether each is a method."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _functions(node, of_class=True)
        elif isinstance(node, Function):
            static = any(isinstance(one, ast.Name) and one.id == "staticmethod" for one in node.decorator_list)
            yield node, of_class and not static
            yield from _functions(node)
        else:
            yield from _functions(node, of_class=of_class)


def _dictated(file: Path) -> set[str]:
    """Names of functions that are handed over as values: who calls them decides what they take."""
    called = {id(node.func) for node in nodes_of(file) if isinstance(node, ast.Call)}
    return {
        node.id if isinstance(node, ast.Name) else node.attr
        for node in nodes_of(file)
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load) and id(node) not in called
    }


def _by_pytest_or_click(function: Function) -> bool:
    """Whether a library calls the function by its parameters' names."""
    decorators = [ast.unparse(one) for one in function.decorator_list]
    return function.name.startswith("test_") or any("fixture" in one or "click" in one for one in decorators)


def _positional(function: Function, *, method: bool) -> int:
    return len(function.args.posonlyargs) + len(function.args.args) - method


@pytest.mark.parametrize("part", [*(f"src/moyai/{room}" for room in ROOMS), "tests"])
def test_more_than_two_arguments_go_by_keyword(part: str) -> None:
    found: list[str] = []
    for file in (ROOT / part).rglob("*.py"):
        if str(file).endswith(OPENSTACKS) or "proto" in file.parts:
            continue
        # with *arguments, what stands before them can be handed over by position only
        long = [
            function
            for function, method in _functions(tree_of(file))
            if not function.args.vararg and _positional(function, method=method) > 2 and not _by_pytest_or_click(function)
        ]
        if long:
            exempt = _dictated(file) | DICTATED
            found += [f"{file.name}:{one.lineno} {one.name}" for one in long if one.name not in exempt]
    assert found == []


def _unread(file: Path) -> Iterator[str]:
    """Private names of the module, functions with decorators apart, that the module does not read."""
    read = {node.id for node in nodes_of(file) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    for node in tree_of(file).body:
        if isinstance(node, Function | ast.ClassDef):
            made = [] if node.decorator_list else [node.name]
        else:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
            made = [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]
        private = (name for name in made if name.startswith("_") and name.strip("_") and not name.startswith("__"))
        yield from (f"{file.relative_to(ROOT)}: {name}" for name in private if name not in read)


def test_a_private_name_is_read_in_its_module() -> None:
    files = [file for top in ("src", "tests") for file in (ROOT / top).rglob("*.py") if "proto" not in file.parts]
    assert [name for file in files for name in _unread(file)] == []


#: The local cloud imports nothing of what runs on clouds, and its drivers run in OpenStack's own environment: behind that wall
#: OpenStack's words mean OpenStack's objects.
WALLED = "localcloud/"
#: Classes of such objects whose names a class before the wall has too.
OPENSTACKS_OBJECTS = {"Listener", "LoadBalancer", "Machines", "Member", "Monitor", "Pool"}
#: A file name that several folders have → what all of these files are. Another name stands for one file.
SHARED = {
    "addons.py": "the add-ons of a cluster: what a plan waits for, how they are rendered",
    "addresses.py": "floating IPs: in a cloud, of load balancers",
    "app.py": "puts together the controllers or services of a process",
    "balancing.py": "the load balancer before the API: as steps, carried out",
    "base.py": "what all modules of the folder build on",
    "beside.py": "what stands beside a cluster: in a spec, planned, as steps, carried out",
    "bgp.py": "BGP: resources of MetalLB, the mode of the pod network",
    "boot_gate.py": "the gate that keeps pods without traffic after a boot: as data, its marker",
    "certificates.py": "the certificates of a cluster: which are due, how they are read, the command",
    "clock.py": "time: the system's, that of the cloud in memory",
    "clusters.py": "clusters by name: the way to one, the command that lists a cloud's",
    "cloud_conf.py": "cloud.conf: the section of OpenStack's, its page of the reference",
    "controller.py": "the one controller of the folder",
    "credentials.py": "credentials of a cloud: what is asked, which a cluster gets, their rotation, the command",
    "desired.py": "the desired state of the folder's subject",
    "difference.py": "the steps from the observed to the desired state of the folder's subject",
    "disks.py": "disks: of a cloud, of the cloud in memory, of NIFCLOUD, of a node",
    "egress.py": "egress addresses: the objects, who has which pods",
    "ending.py": "steps that end a cluster through Kubernetes: planned, as data, carried out",
    "errors.py": "classes of errors: the common ones, how those of a service become them",
    "fencing.py": "fencing of nodes: the decision, the controller",
    "files.py": "files that are whole or absent: for moyai's processes, for those that load linux alone",
    "firewall.py": "security groups: in a cloud, of a cluster",
    "graph.py": "a graph of work: tasks, steps",
    "inventory.py": "a cluster's machines for Ansible: from the record, the command",
    "inside.py": "steps inside of a running cluster: as data, carried out",
    "kernel.py": "the calls of the kernel that the controller beside it makes",
    "keys.py": "keys of objects: their form, those of a cluster",
    "load_balancers.py": "load balancers of a cloud",
    "machines.py": "machines: of the cloud in memory, of NIFCLOUD, of a cluster",
    "making.py": "steps that make something: as data, carried out",
    "manifests.py": "the objects of Kubernetes with which a process runs in a cluster",
    "mode_change.py": "a change of the pod network's mode: its stages, the command",
    "model.py": "the data of the folder's subject: what clouds return, a spec",
    "networks.py": "private networks of a cloud",
    "nodes.py": "nodes: the plan, the controllers",
    "policy.py": "network policies: as objects of Kubernetes, commands about them",
    "provider.py": "a provider of Services of type LoadBalancer: what is asked, Octavia's",
    "quotas.py": "quotas of a cloud",
    "record.py": "a cluster's record, its page of the reference",
    "removing.py": "steps that remove something: as data, carried out",
    "routers.py": "routers of a cloud",
    "routes.py": "routes of pods in a router: in a cloud, as a mode, the controller",
    "machine_keys.py": "keys of a running machine: the program there, how it is started",
    "rotating.py": "rotations of keys: their steps as data, carried out",
    "rpc.py": "the gRPC service of the folder",
    "service.py": "a Service: as an object, its controller",
    "session.py": "how calls reach a cloud",
    "survey.py": "what a cloud says about itself",
    "settings.py": "the settings of the folder's process",
    "toolchain.py": "the toolchain, its commands",
    "upgrade.py": "another version of Kubernetes: the command, what it does",
    "waiting.py": "waiting: the loop, the steps that wait",
    "waits.py": "waits for machines and for Kubernetes: planned, carried out",
    "node_files.py": "what a node is configured with for the pod network: as text, written by its agent",
    "removal.py": "what takes something away: nodes that leave, an agent's pod network",
}


def test_a_class_name_means_one_thing() -> None:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for file in (ROOT / "src/moyai").rglob("*.py"):
        where = str(file.relative_to(ROOT / "src/moyai"))
        if "proto" in file.parts:
            continue
        for node in nodes_of(file):
            if isinstance(node, ast.ClassDef):
                # a private name is read as the same word
                found[node.name.lstrip("_")].append(where)
    several = {name: files for name, files in found.items() if len(files) > 1}
    assert {name: files for name, files in several.items() if name not in OPENSTACKS_OBJECTS} == {}
    assert {name: [one.startswith(WALLED) for one in sorted(files)] for name, files in several.items()} == {
        name: [False, True] for name in OPENSTACKS_OBJECTS
    }


def test_files_of_one_name_have_one_subject() -> None:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for file in (ROOT / "src/moyai").rglob("*.py"):
        where = file.relative_to(ROOT / "src/moyai").as_posix()
        if not where.startswith(WALLED) and "proto" not in file.parts and file.name not in ("__init__.py", "__main__.py"):
            found[file.name].append(where)
    several = {name: files for name, files in found.items() if len(files) > 1}
    assert {name: files for name, files in several.items() if name not in SHARED} == {}, "choose a name that says the subject"
    assert sorted(set(SHARED) - set(several)) == []


def _called(node: ast.Call) -> str:
    """The dotted name of the function that is called, "" where it has none."""
    return ast.unparse(node.func) if isinstance(node.func, ast.Attribute | ast.Name) else ""


def _pauses(tree: ast.Module) -> Iterator[int]:
    """Lines that let real time pass: sleeps, and waits for an event that nobody else knows."""
    virtual = any("pytest.mark.virtual_time" in ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "asyncio"):
            if any(name.name == "sleep" for name in node.names):
                yield node.lineno
        elif isinstance(node, ast.Call):
            name, arguments = _called(node), [ast.unparse(one) for one in (*node.args, *(one.value for one in node.keywords))]
            # sleep(0) gives the other tasks a turn; on a virtual loop no second passes
            sleeps = name == "time.sleep" or (name == "asyncio.sleep" and arguments != ["0"] and not virtual)
            if sleeps or (name.endswith("Event().wait") and arguments):
                yield node.lineno


def test_unit_tests_do_not_sleep() -> None:
    found = [f"{file.name}:{line}" for file in (ROOT / "tests/unit").glob("*.py") for line in _pauses(tree_of(file))]
    assert found == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("import time\ntime.sleep(0.1)", [2]),
        ("from time import sleep", [1]),
        ("await asyncio.sleep(0)\nawait asyncio.sleep(delay=1)", [2]),
        ("pytestmark = pytest.mark.virtual_time\nawait asyncio.sleep(5)\ntime.sleep(5)", [3]),
        ("threading.Event().wait(0.1)\nasyncio.Event().wait()", [1]),
        ("clock.sleep(5)\nclock.asleep(5)", []),
    ],
)
def test_the_rule_against_sleep_sees_each_form(text: str, lines: list[int]) -> None:
    assert list(_pauses(ast.parse(text))) == lines


#: Calls that read from a connection: what comes may end in the middle.
READS = ("urlopen", "getresponse", ".open(")


def _half_answers(tree: ast.Module) -> Iterator[int]:
    """Lines of handlers that bear a connection that fails, but not an answer that ends in the middle: HTTPException is no
    OSError."""
    if not {"urllib.request", "http.client"} & {
        name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names
    }:
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Try) or not any(word in ast.unparse(part) for part in node.body for word in READS):
            continue
        caught = [ast.unparse(one.type) if one.type else "Exception" for one in node.handlers]
        bears = any(word in text for text in caught for word in ("OSError", "URLError", "ConnectionError"))
        if bears and not any("HTTPException" in text or text == "Exception" for text in caught):
            yield node.lineno


def test_whoever_bears_a_lost_connection_bears_half_an_answer() -> None:
    files = [file for top in ("src", "tests") for file in (ROOT / top).rglob("*.py")]
    assert [f"{file.relative_to(ROOT)}:{line}" for file in files for line in _half_answers(tree_of(file))] == []


@pytest.mark.parametrize(
    ("handlers", "lines"),
    [
        ("except OSError:\n    pass", [3]),
        ("except (urllib.error.URLError, TimeoutError):\n    pass", [3]),
        ("except (OSError, http.client.HTTPException):\n    pass", []),
        ("except OSError:\n    pass\nexcept http.client.HTTPException:\n    pass", []),
        ("except ValueError:\n    pass", []),
    ],
)
def test_the_rule_about_half_answers_sees_each_form(handlers: str, lines: list[int]) -> None:
    text = f"import http.client\nimport urllib.request\ntry:\n    urllib.request.urlopen(url).read()\n{handlers}"
    assert list(_half_answers(ast.parse(text))) == lines
