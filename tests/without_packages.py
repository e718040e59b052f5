"""Run a script as if packages were not installed: `python -c RUN_WITHOUT NAME,NAME SCRIPT ARGUMENT …`."""

RUN_WITHOUT = """
import runpy, sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
