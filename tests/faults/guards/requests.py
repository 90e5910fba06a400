"""Guards of what is asked of the service: how much at once, how slowly, and in whose name."""

from __future__ import annotations

from tests.faults.guards.guard import Guard

CONNECTIONS, RECEIVING, MIDDLEWARE = "app/api/connections.py", "app/api/receiving.py", "app/api/middleware.py"
HEADS, BODIES, GATE = (
    "tests/app/api/test_connections.py",
    "tests/app/api/test_receiving.py",
    "tests/app/api/test_middleware.py",
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
        "        while len(self.connections) > most_connections() and (leaving := self._in_favour(last)):\n",
        "        while False and (leaving := self._in_favour(last)):\n",
        f"{HEADS}::test_the_connection_that_has_waited_longest_makes_room",
    ),
    Guard(
        "a connection that has had a request makes room last",
        CONNECTIONS,
        "in chain(read, waiting.served)",
        "in chain(waiting.served, read)",
        f"{HEADS}::test_a_connection_that_has_had_a_request_makes_room_last",
    ),
    Guard(
        "a new client is no candidate to make room for itself",
        CONNECTIONS,
        "        self._make_room(self)\n",
        "        self._waiting.new[self], self._is_unread = None, False\n        self._make_room(self)\n",
        f"{HEADS}::test_one_that_had_a_request_makes_room_for_a_new_client",
    ),
    Guard(
        "a connection that was not read yet makes no room",
        CONNECTIONS,
        "self._is_unread = True",
        "self._is_unread = False",
        f"{HEADS}::test_requests_of_a_crowd_that_comes_at_once_are_all_heard",
    ),
    Guard(
        "a body that does not come makes room for a new client",
        CONNECTIONS,
        "chain(free, silent, waiting.served)",
        "chain(free, waiting.served)",
        f"{HEADS}::test_one_whose_body_does_not_come_makes_room_for_a_new_client",
    ),
    Guard(
        "an answer that is being read makes room last",
        CONNECTIONS,
        " if not other.transport.get_write_buffer_size())",
        ")",
        f"{HEADS}::test_one_whose_answer_is_not_taken_yet_makes_room_last",
    ),
    Guard(
        "a client that reads slowly is not closed",
        CONNECTIONS,
        "        if self.transport.get_write_buffer_size() < self._unsent:\n",
        "        if False:\n",
        f"{HEADS}::test_a_client_that_takes_its_answer_slowly_is_not_closed",
    ),
    Guard(
        "a client that does not read is closed",
        CONNECTIONS,
        "            self.transport.abort()\n",
        "            pass\n",
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
        "asyncio.timeout(PIECE_SECONDS - self._waited)",
        "asyncio.timeout(None)",
        f"{BODIES}::test_a_body_that_stops_is_answered_and_closed",
    ),
    Guard(
        "bodies together have their room",
        RECEIVING,
        "        while self.held + wanted > self.together:\n",
        "        while False:\n",
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
        "a body makes no room for itself",
        RECEIVING,
        "self.coming - {wanting}",
        "self.coming",
        f"{BODIES}::test_a_body_that_dawdles_makes_no_room_for_itself",
    ),
    Guard(
        "what is only announced takes no room",
        RECEIVING,
        "        kind.make_room(self, length)\n",
        "        kind.make_room(self, length)\n        kind.held += length\n        self._held = length\n",
        f"{BODIES}::test_what_is_only_announced_takes_no_room",
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
