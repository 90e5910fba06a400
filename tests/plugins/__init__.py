"""What a team could add from outside, used by the tests: BEQUEST_PLUGINS=tests.plugins."""
