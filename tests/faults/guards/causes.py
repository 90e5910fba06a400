"""Guards of what a fault is called: the broker's, the disk's, the database's, and what names, pages and intervals show."""

from __future__ import annotations

from tests.faults.guards.guard import Guard

F, K, W = "tests/app/test_frozen_database.py", "tests/worker/test_broker.py", "tests/worker/test_full_disk.py"
SUPERVISOR = "worker/supervisor.py"
GUARDS = (
    Guard(
        "a living server may take its time",
        "app/db.py",
        "                silent = _is_silent()\n",
        "                silent = True\n",
        F + "::test_a_statement_of_a_server_that_lives_may_take_as_long_as_it_likes",
    ),
    Guard(
        "a frozen server is given up",
        "app/db.py",
        "return super().wait(gen, interval, 0 if silent else _PATIENCE_SECONDS)",
        "return super().wait(gen, interval, 60)",
        F + "::test_a_service_whose_database_is_frozen_says_soon_that_it_is_not_ready",
    ),
    Guard(
        "nobody waits twice for a silent server",
        "app/db.py",
        '    if time.monotonic() < _silent_until:\n        raise psycopg.OperationalError("the server does not answer")\n',
        "",
        F + "::test_while_a_server_is_known_to_be_silent_nobody_waits_for_it_again",
    ),
    Guard(
        "a refusal is no silence",
        "app/db.py",
        "        except psycopg.Error:  # it refuses, and so it lives; or it has gone, which its connections are told\n            pass\n",
        "        except psycopg.Error:\n            return True\n",
        F + "::test_a_server_that_refuses_new_connections_is_not_taken_for_a_silent_one",
    ),
    Guard(
        "a full disk of the database is named",
        "app/api/problems.py",
        "            if db.ran_out_of_disk(error):",
        "            if False:",
        "tests/app/test_db.py::test_a_database_that_is_out_of_disk_is_told_from_one_that_is_gone",
    ),
    Guard(
        "an error reply ends no worker",
        "worker/main.py",
        "redis.Transport.connection_errors += (ResponseError,)\n",
        "",
        K + "::test_a_worker_outlives_an_error_that_its_broker_answers_with[READONLY]",
    ),
    Guard(
        "a connection is made when the broker hands out messages",
        "worker/main.py",
        '            self.client.brpop(f"{settings().queue}.probe", timeout=0.01)\n',
        "",
        K + "::test_a_broker_that_refuses_only_to_hand_out_messages_is_asked_again_after_pauses",
    ),
    Guard(
        "ready means wake-ups are taken",
        "app/queue.py",
        "        probe(_redis())\n",
        "        _redis().ping()\n",
        K + "::test_a_worker_outlives_an_error_that_its_broker_answers_with[OOM]",
    ),
    Guard(
        "a reader without room blames no file",
        "app/data/reader_process.py",
        "    if code == disk.NO_ROOM:\n",
        "    if False:\n",
        "tests/app/data/test_uploads.py::test_a_full_disk_is_no_fault_of_the_file",
    ),
    Guard(
        "an attempt that finds no room is no crash",
        SUPERVISOR,
        'if disk.is_full(error) else ("crashed"',
        'if False else ("crashed"',
        W,
    ),
    Guard(
        "a death on a full disk is no crash",
        SUPERVISOR,
        "            case None, _ if machine.disk_is_full():\n",
        "            case None, _ if False:\n",
        W,
    ),
    Guard(
        "a log without room ends no job",
        "worker/training/process/channel.py",
        "with contextlib.suppress(OSError):  # a log",
        "if True:  # a log",
        W,
    ),
    Guard(
        "a traceback without room takes no word back",
        "worker/training/trainer.py",
        "with contextlib.suppress(OSError):  # the log",
        "if True:  # the log",
        W,
    ),
    Guard(
        "libraries' words for a full disk",
        "worker/training/process/failures.py",
        "        case _ if disk.is_full(error):\n",
        "        case _ if False:\n",
        "tests/worker/training/process/test_failures.py",
    ),
    Guard(
        "a whole file is on the disk before it has its name",
        "app/durable.py",
        "        sync(beside)\n",
        "",
        "tests/app/test_durable.py",
    ),
    Guard(
        "a whole file's name is on the disk before its writer goes on",
        "app/durable.py",
        "        sync(path.parent)\n",
        "",
        "tests/app/test_durable.py",
    ),
    Guard(
        "a torn part of the metric log ends it",
        "worker/training/process/metric_log.py",
        "        if digest.encode() != written:\n            break\n",
        "",
        "tests/worker/training/process/test_metric_log.py",
    ),
    Guard(
        "an attempt begins metric logs of its own",
        "worker/training/process/metric_log.py",
        '        self._digest = ""  # of the newest',
        '        self._digest = "0"  # of the newest',
        "tests/worker/training/process/test_metric_log.py",
    ),
    Guard(
        "live words are code",
        "worker/training/experiment/report/card.py",
        "if match is None or not _LIVE.search(match[2]):",
        "if True:",
        "tests/worker/training/experiment/report/test_card.py",
    ),
    Guard(
        "a job's name is a name",
        "app/spec/base.py",
        "    AfterValidator(_named),\n",
        "",
        "tests/app/data/test_names.py",
    ),
    Guard(
        "a page is bounded in bytes", "app/api/pages.py", " or size >= MOST_BYTES", "", "tests/app/api/test_pages.py"
    ),
    Guard(
        "a list names a few classes",
        "app/api/shapes.py",
        "name: value and value[:MOST_LISTED]",
        "name: value",
        "tests/app/api/test_pages.py",
    ),
    Guard(
        "a thinned series keeps its best",
        "app/metrics.py",
        "(:extremes AND value IS NOT NULL AND (from_below = 1 OR from_above = 1))",
        "(:extremes AND false)",
        "tests/app/test_jobs.py::test_each_series_is_thinned_by_itself_with_its_ends_and_its_best_kept",
    ),
    Guard(
        "an interval shows its side",
        "worker/training/scores/sentence.py",
        "    return next(filter(shown, range(1, MOST_PLACES)), MOST_PLACES)\n",
        "    return 1\n",
        "tests/worker/training/scores/test_sentence.py",
    ),
)
