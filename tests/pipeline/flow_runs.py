"""What flow runs without a server leave in Prefect's database, and print."""

import json
import re
import sqlite3


def artifacts(repository):
    """Key -> Markdown of each; a key that came twice is an error."""
    with sqlite3.connect(repository.root / ".prefect/prefect.db") as database:
        found = database.execute("select key, data from artifact where type = 'markdown'").fetchall()
    assert len({key for key, _ in found}) == len(found)
    return {key: json.loads(data) for key, data in found}


def log_lines(repository, task):
    """What Prefect's log holds of the tasks of this name."""
    wanted = "select message from log where task_run_id in (select id from task_run where name = ?) order by timestamp"
    with sqlite3.connect(repository.root / ".prefect/prefect.db") as database:
        return [message for (message,) in database.execute(wanted, (task,))]


def final_states(output):
    """Name -> state of the task runs, by the lines on the terminal."""
    return dict(re.findall(r"Task run '([^']+)' - Finished in state (\w+)\(", output))
