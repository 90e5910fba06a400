"""A column of each kind that a task may learn."""

from __future__ import annotations

from app.spec.data import Column

TWO = Column(name="c", type="category", classes=["no", "yes"])
THREE = Column(name="c", type="category", classes=["a", "b", "c"])
NUMBER = Column(name="c", type="number")
VECTOR = Column(name="c", type="number", shape=[2, 3])
LABELS = Column(name="c", type="labels", classes=["a", "b", "c", "d"], shape=[4])
