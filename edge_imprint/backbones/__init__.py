# SPDX-License-Identifier: Apache-2.0
"""Frozen backbones by name, each with its weights' digest and its own preprocessing."""

from __future__ import annotations

from edge_imprint.backbones.backbone import Backbone, OwnClasses
from edge_imprint.backbones.loading import graph_for, load_backbone

__all__ = ["Backbone", "OwnClasses", "graph_for", "load_backbone"]
