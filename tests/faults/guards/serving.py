"""Guards of `bequest serve`: whose code runs, whose folders it uses, what it watches, how it stops."""

from __future__ import annotations

from tests.faults.guards.guard import Guard

P, S, E = "tests/app/test_programs.py", "tests/app/test_serve.py", "tests/app/test_embedded.py"
T, TT = "tests/worker/test_trainers.py", "tests/worker/test_turns.py"
PROGRAMS, SERVE, EMBEDDED, TRAINERS = "app/programs.py", "app/serve.py", "app/embedded.py", "worker/trainers.py"
TURNS = "worker/turns.py"
MODULES = f"{P}::test_modules_come_from_our_folder_and_absolute_ones_that_were_named_never_from_where_one_stands"
PORT = f"{S}::test_another_service_on_the_port_is_not_taken_for_ours"
CTRL_C = f"{S}::test_only_ctrl_c_skips_a_checkpoint_and_only_after_the_warning"
FROZEN = f"{S}::test_a_frozen_api_is_replaced_and_keeps_nobody_from_stopping"
GUARDS = (
    Guard(
        "a program works in a folder of ours",
        PROGRAMS,
        "                cwd=program.log.parent,\n",
        "",
        f"{P}::test_a_program_works_in_the_folder_of_its_log_which_is_closed_to_others",
    ),
    Guard("no module comes from the working folder", PROGRAMS, '"PYTHONSAFEPATH": "1", ', "", MODULES),
    Guard(
        "an entry of PYTHONPATH that means the working folder is left out",
        PROGRAMS,
        " if Path(entry).is_absolute()]",
        "]",
        MODULES,
    ),
    Guard(
        "a worker by hand takes no module from where somebody stands",
        SERVE,
        "    os.chdir(programs.CODE)",
        "    pass",
        f"{S}::test_a_worker_of_its_own_takes_no_module_from_where_somebody_stands",
    ),
    Guard(
        "python -m needs -P",
        "app/cli.py",
        'if __name__ == "__main__" and not sys.flags.safe_path:',
        "if False:",
        f"{S}::test_python_m_is_refused_where_it_would_take_modules_from_the_working_folder",
    ),
    Guard(
        "another service on the port is not taken for ours",
        SERVE,
        "answer is None or answer.headers.get(_INSTANCE) != instance",
        "answer is None",
        PORT,
    ),
    Guard(
        "another project is not taken for ours",
        SERVE,
        'isinstance(body, dict) and body.get("version") == programs.version()',
        "True",
        PORT,
    ),
    Guard(
        "a link is not followed",
        PROGRAMS,
        "flags | os.O_NOFOLLOW | os.O_CLOEXEC",
        "flags | os.O_CLOEXEC",
        f"{P}::test_a_log_that_is_a_link_is_refused_and_what_it_leads_to_stays_as_it_is",
    ),
    Guard(
        "another user's folder or file is refused",
        PROGRAMS,
        "if uid != os.geteuid() and (owner is None or uid != owner[0]):",
        "if False:",
        f"{P}::test_what_belongs_to_somebody_else_is_refused_with_his_name",
    ),
    Guard(
        "nobody else can hold the lock",
        PROGRAMS,
        "    os.fchmod(file.fileno(), 0o600)\n",
        "",
        f"{E}::test_a_lock_of_an_earlier_version_is_closed_so_that_nobody_else_can_hold_it",
    ),
    Guard(
        "a folder that everybody could swap is refused",
        EMBEDDED,
        "            if open_to_all or (",
        "            if (",
        f"{E}::test_a_folder_that_everybody_could_swap_is_refused_and_one_in_a_sticky_folder_is_not",
    ),
    Guard(
        "root's folder does not lie in another user's",
        EMBEDDED,
        "(open_to_group or not ours)",
        "open_to_group",
        f"{E}::test_root_s_folder_on_somebody_else_s_way_is_refused",
    ),
    Guard(
        "another user's link is not followed to our folder",
        EMBEDDED,
        "            if not ours:\n",
        "            if False:\n",
        f"{E}::test_somebody_else_s_link_to_our_own_folder_is_refused",
    ),
    Guard(
        "the place of the sockets cannot be taken first",
        EMBEDDED,
        "    except NotOurs:  # where all",
        "    except ZeroDivisionError:  # where all",
        f"{E}::test_who_takes_the_place_of_the_sockets_first_keeps_nobody_from_starting",
    ),
    Guard(
        "the embedded database admits nobody by the network",
        EMBEDDED,
        "    _refuse_network(data, stand_in)\n",
        "",
        f"{E}::test_a_cluster_that_listens_admits_nobody_by_the_network",
    ),
    Guard(
        "signals in quick succession are one request",
        SERVE,
        "elif number == signal.SIGINT and another:",
        "elif number == signal.SIGINT:",
        f"{S}::test_signals_in_quick_succession_are_one_request",
    ),
    Guard(
        "only Ctrl-C skips a checkpoint", SERVE, "elif number == signal.SIGINT and another:", "elif another:", CTRL_C
    ),
    Guard(
        "a checkpoint is skipped only after a warning",
        SERVE,
        "self.skip = clock - self._warned < _SKIP_SECONDS",
        "self.skip = True",
        CTRL_C,
    ),
    Guard(
        "a frozen program is started again",
        SERVE,
        "if self.running.is_frozen():",
        "if False:",
        f"{P}::test_a_frozen_program_is_ended_with_its_group_and_started_again",
    ),
    Guard(
        "a program that starts has more patience",
        PROGRAMS,
        "(1 if self.answered else _TIMES_AT_START)",
        "1",
        f"{P}::test_a_program_that_answers_is_left_alone_and_one_that_starts_has_more_time",
    ),
    Guard("the API is watched", SERVE, "        frozen_after=_API_FROZEN_AFTER,\n", "", FROZEN),
    Guard(
        "a frozen API keeps nobody from stopping",
        SERVE,
        "if time.monotonic() > began + _FOR_THE_API:",
        "if False:",
        FROZEN,
    ),
    Guard(
        "a frozen Python writes down where it hangs",
        PROGRAMS,
        "        self.process.send_signal(signal.SIGABRT)\n",
        "",
        f"{P}::test_a_python_that_is_ended_for_being_frozen_has_written_where_it_hung",
    ),
    Guard(
        "logs are cut while they are written",
        SERVE,
        "            programs.cut(child.running.program.log)\n",
        "",
        f"{P}::test_a_log_is_bounded_while_it_is_written_and_its_end_is_kept",
    ),
    Guard(
        "the API may open many files",
        SERVE,
        "    programs.set_limits()\n",
        "",
        f"{S}::test_a_child_that_dies_is_started_again",
    ),
    Guard(
        "a trainer's home is its worker's own",
        TRAINERS,
        "        own_folder(folder)\n",
        "        folder.mkdir(mode=0o700, parents=True, exist_ok=True)\n",
        f"{T}::test_a_home_that_is_a_link_is_none_for_a_trainer",
    ),
    Guard(
        "a trainer takes no module from where it works",
        TRAINERS,
        "**safe_path(passed)",
        "**passed",
        f"{T}::test_only_what_a_trainer_needs_is_passed_on",
    ),
    Guard(
        "a model that is loaded answers as it did when it was kept",
        "worker/warm_models.py",
        '        raise ModelDiffers("; ".join(found))\n',
        "        pass\n",
        "tests/worker/training/kept/test_golden.py::test_the_inference_program_refuses_a_model_that_answers_otherwise",
    ),
    Guard(
        "who fails in a call with others fails alone",
        TURNS,
        "                _call([one])\n",
        "                one.told = error\n",
        f"{TT}::test_only_the_one_that_fails_is_told_so",
    ),
    Guard(
        "a call has rows of one model only",
        TURNS,
        "one.function is first.function and ",
        "",
        f"{TT}::test_first_come_first_served_whatever_the_function",
    ),
    Guard(
        "a call has no more rows than a model takes at once",
        TURNS,
        "                    room -= len(one.rows)\n",
        "",
        f"{TT}::test_a_call_has_no_more_rows_than_the_function_takes_and_who_does_not_fit_is_next",
    ),
    Guard(
        "a model lives as long as its function",
        "worker/warm_models.py",
        "        self._model = model  # a traced function does not keep its variables alive\n",
        "",
        "tests/worker/test_warm_models.py::test_a_model_that_makes_room_takes_its_function_along",
    ),
)
