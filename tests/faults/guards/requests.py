"""Guards of what is asked of the service: how much at once, how slowly, and in whose name."""

from __future__ import annotations

from tests.faults.guards.guard import Guard

CONNECTIONS, RECEIVING, MIDDLEWARE = "app/api/connections.py", "app/api/receiving.py", "app/api/middleware.py"
HEADS, BODIES, GATE = (
    "tests/app/api/test_connections.py",
    "tests/app/api/test_receiving.py",
    "tests/app/api/test_gate.py",
)
GUARDS = (
    Guard(
        "a head has its time",
        CONNECTIONS,
        "            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)",
        "            pass",
        f"{HEADS}::test_a_head_that_is_not_finished_in_time_is_answered_and_closed",
    ),
    Guard(
        "the time of a head is not begun again by what comes of it",
        CONNECTIONS,
        "        if self._head_timer is None:\n",
        "        self._expect_no_head()\n        if True:\n",
        f"{HEADS}::test_a_head_that_trickles_is_closed_as_well",
    ),
    Guard(
        "connections are limited",
        CONNECTIONS,
        "        if len(self.connections) > most_connections():\n",
        "        if False:\n",
        f"{HEADS}::test_the_connection_that_has_waited_longest_makes_room",
    ),
    Guard(
        "a connection that has had a request makes room last",
        CONNECTIONS,
        "next(iter(self.new or self.known))",
        "next(iter(self.known or self.new))",
        f"{HEADS}::test_a_connection_that_has_had_a_request_makes_room_last",
    ),
    Guard(
        "a client that does not read is closed",
        CONNECTIONS,
        "        self._write_timer = self.loop.call_later(STALLED_SECONDS, self.transport.abort)\n",
        "",
        f"{HEADS}::test_a_client_that_does_not_read_its_answer_is_closed",
    ),
    Guard(
        "a refused accept is no traceback",
        CONNECTIONS,
        """ and "accept" in context.get("message", ""):""",
        " and False:",
        f"{HEADS}::test_a_shortage_of_files_is_a_line_now_and_then",
    ),
    Guard(
        "each piece of a body has its time",
        RECEIVING,
        "asyncio.timeout_at(self._marked + PIECE_SECONDS)",
        "asyncio.timeout_at(None)",
        f"{BODIES}::test_a_body_that_stops_is_answered_and_closed",
    ),
    Guard(
        "bodies together have their room",
        RECEIVING,
        "        if self._kind.held + more > self._kind.together:\n",
        "        if False:\n",
        f"{BODIES}::test_bodies_take_no_more_than_their_room",
    ),
    Guard(
        "a body that dawdles makes room",
        RECEIVING,
        "if body.stalled() > PRESSED_SECONDS",
        "if False",
        f"{BODIES}::test_a_body_that_dawdles_makes_room",
    ),
    Guard(
        "a body's room is given back",
        MIDDLEWARE,
        "                    body.leave()\n",
        "                    pass\n",
        f"{BODIES}::test_the_room_is_given_back_whatever_happens",
    ),
    Guard(
        "uploads on their way lie below the data folder",
        "app/main.py",
        "    tempfile.tempdir = str(_folder_for_temporary_files())\n",
        "",
        f"{BODIES}::test_uploads_on_their_way_lie_below_the_data_folder",
    ),
    Guard(
        "two lengths are refused",
        MIDDLEWARE,
        "                _check_framing(headers)\n",
        "",
        f"{GATE}::test_a_body_whose_length_is_said_in_two_ways_is_refused_and_the_connection_closed",
    ),
    Guard(
        "the absolute form's host is the one that counts",
        MIDDLEWARE,
        "                headers = _origin_form(scope)\n",
        "                headers = Headers(scope=scope)\n",
        f"{GATE}::test_a_target_in_the_absolute_form_is_served_by_its_own_host",
    ),
    Guard(
        "a model is looked up before a body is read",
        "app/api/models.py",
        "    await run_in_threadpool(_model, ref)",
        "    pass",
        f"{GATE}::test_a_prediction_has_its_limit_and_needs_a_model_before_its_body_is_read",
    ),
)
