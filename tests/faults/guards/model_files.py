"""Guards of users' models: no code is named, no file but the sent one is read, no number is made room for unseen."""

from __future__ import annotations

from tests.faults.guards.guard import Guard

REFUSED = "tests/app/model_files/test_hostile.py::test_it_is_refused_with_a_way_out"
GUARDS = (
    Guard(
        "a layer is of Keras's own module and registered as nothing else",
        "app/model_files/_layer_config.py",
        "        if module in homes and registered in (None, name):\n",
        "        if True:\n",
        REFUSED + "[advisory: a class of another module]",
    ),
    Guard(
        "an activation is a name of the list",
        "app/spec/stock_layers/_rules.py",
        "isinstance(value, str) and value in ACTIVATIONS",
        "isinstance(value, str)",
        "tests/app/test_stock_layers.py::test_values_are_bounded",
    ),
    Guard(
        "a link in a file of weights is not followed",
        "app/model_files/_hdf5.py",
        "    if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:\n",
        "    if False:\n",
        REFUSED + "[h5: soft_link]",
    ),
    Guard(
        "an array lies in its own file",
        "app/model_files/_hdf5.py",
        "    if created.get_layout() == h5py.h5d.VIRTUAL or created.get_external_count():\n",
        "    if False:\n",
        REFUSED + "[h5: external_bytes]",
    ),
    Guard(
        "an array is no longer than what is stored of it",
        "app/model_files/_hdf5.py",
        "    if declared > FLOOR and declared > RATIO * found.id.get_storage_size():\n",
        "    if False:\n",
        "tests/app/model_files/test_hostile.py::test_an_array_that_declares_too_much_is_refused_before_its_shape_is_looked_at",
    ),
    Guard(
        "a model's file is one zip from its first byte to its last",
        "app/model_files/archive.py",
        "    if not starts or starts[0][0] != 0 or overlap or ends[-1] > directory or directory > size:\n",
        "    if False:\n",
        REFUSED + "[archive: a prefix that is a zip]",
    ),
    Guard(
        "members of other names are not taken",
        "app/model_files/archive.py",
        "    if name not in KNOWN | EXCHANGE and not asset:\n",
        "    if False:\n",
        REFUSED + "[archive: a member beside]",
    ),
    Guard(
        "a pickle's name of code is not looked up",
        "app/pretrained/torch_file.py",
        '        raise pickle.UnpicklingError("it names code")\n',
        "        return super().find_class(module, name)\n",
        "tests/app/pretrained/test_torch_file.py::test_a_name_of_code_is_refused_and_not_looked_up",
    ),
    Guard(
        "a pickle's steps are judged before the first is taken",
        "app/pretrained/torch_file.py",
        '        if step.name.endswith("PUT") and not 0 <= int(argument or 0) < MOST_MEMOS:\n',
        "        if False:\n",
        "tests/app/pretrained/test_torch_file.py::test_a_place_far_away_is_not_made_room_for",
    ),
    Guard(
        "a tensor does not reach beyond its storage",
        "app/pretrained/torch_file.py",
        "    if prod(sides) and last >= storage.size:\n",
        "    if False:\n",
        "tests/app/pretrained/test_torch_file.py::test_a_view_beyond_its_storage_is_refused",
    ),
    Guard(
        "an exchanged array is what its layer asks for",
        "app/model_files/exchange.py",
        "        if not stored.fits(array.shape):\n",
        "        if False:\n",
        "tests/app/model_files/test_exchange.py::test_arrays_are_what_their_layers_ask_for_all_faults_at_once",
    ),
    Guard(
        "what a config unfolds into is counted",
        "app/model_files/_models.py",
        "        if self._work > 8 * MOST_LAYERS:\n",
        "        if False:\n",
        "tests/app/model_files/test_config.py::test_models_that_call_one_another_are_counted_even_where_they_hold_no_layer",
    ),
    Guard(
        "a config's depth is known before it is parsed",
        "app/model_files/json_text.py",
        "    if deepest > DEEPEST:\n",
        "    if False:\n",
        "tests/app/model_files/test_hostile.py::test_json_is_bounded_before_it_is_parsed",
    ),
)
