"""Makes a component of a plugin's module: ``python -m millrace.build plugin.py -o plugin.wasm``.

Needs componentize-py beside it: ``pip install componentize-py==0.25.1``. The component imports nothing but the host's own
interfaces; ``--with-wasi`` leaves WASI in, which the host links empty.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

_ENTRY = '''
import {module}
from millrace import _component
from wit_world import exports
from wit_world.exports import lifecycle, {role}


class Lifecycle(_component.LifecycleMixin, exports.Lifecycle):
    lifecycle_types = lifecycle


class {role_class}(exports.{role_class}):
    def plan(self, id, table, available_meta):
        return _component.{role}_plan({role}, id, table)

    def {call}(self, b):
        return _component.{role}_{call}({role}, b)
'''


def role_of(module: Path) -> str:
    """The role of a module's plugin, found by importing it."""
    ask = (
        "import sys, importlib; sys.path.insert(0, sys.argv[1]); importlib.import_module(sys.argv[2]);"
        "from millrace import _export, Validator\n"
        "if _export.registered is None: sys.exit('no class of it is decorated with @millrace.plugin')\n"
        "print('validator' if issubclass(_export.registered.type, Validator) else 'transform')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(_search_path())}
    run = subprocess.run(
        [sys.executable, "-c", ask, str(module.parent), module.stem], capture_output=True, text=True, env=environment
    )
    if run.returncode != 0:
        raise SystemExit(f"{module}: {run.stderr.strip()}")
    return run.stdout.strip()


def _search_path() -> list[str]:
    here = str(Path(__file__).resolve().parent.parent)
    known = os.environ.get("PYTHONPATH", "")
    return [here, *([known] if known else [])]


def componentize_py() -> str:
    beside = Path(sys.executable).parent / "componentize-py"
    found = str(beside) if beside.is_file() else shutil.which("componentize-py")
    if found is None:
        raise SystemExit("componentize-py is absent: pip install componentize-py==0.25.1")
    return found


def build(module: Path, output: Path, with_wasi: bool = False) -> None:
    """Writes the component in one step, so that a pipeline that watches it never sees half of it."""
    role = role_of(module)
    call = "check" if role == "validator" else "apply"
    with tempfile.TemporaryDirectory() as folder:
        entry = _ENTRY.format(module=module.stem, role=role, role_class=role.capitalize(), call=call)
        (Path(folder) / "millrace_entry.py").write_text(entry)
        # Not the folder that the SDK is installed in: everything else that is there would be looked through.
        unused = shutil.ignore_patterns("wit", "build.py", "testing.py", "__pycache__")
        shutil.copytree(Path(__file__).parent, Path(folder) / "millrace", ignore=unused)
        staged = output.with_suffix(".wasm.new")
        with resources.as_file(resources.files("millrace") / "wit") as wit:
            command = [componentize_py(), "-d", str(wit), "-w", f"sdk-{role}", "componentize", "millrace_entry"]
            paths = [folder, str(module.resolve().parent)]
            command += [word for path in paths for word in ("-p", path)]
            command += ([] if with_wasi else ["--stub-wasi"]) + ["-o", str(staged.resolve())]
            environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
            run = subprocess.run(command, capture_output=True, text=True, env=environment)
        if run.returncode != 0:
            raise SystemExit(f"{module}: {run.stdout}{run.stderr}")
        staged.replace(output)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m millrace.build", description=__doc__.split("\n")[0])
    parser.add_argument("module", type=Path, help="the plugin's file, such as plugin.py")
    parser.add_argument("-o", "--output", type=Path, required=True, help="where the component goes")
    parser.add_argument("--with-wasi", action="store_true", help="leave WASI in instead of stubs that trap")
    options = parser.parse_args(arguments)
    if not options.module.is_file():
        raise SystemExit(f"{options.module}: there is no such file")
    build(options.module, options.output, options.with_wasi)
    print(f"{options.output}: {options.output.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
