"""Gradio's colors: its variables take ours, which `assets/tokens.css` names by what they mean."""

from __future__ import annotations

import inspect

import gradio as gr

from trainer.contract.home import CHECKOUT

STYLES = sorted((CHECKOUT / "assets").glob("*.css"))
_COLORS = {  # the same names in light and dark
    "canvas": ["body_background_fill", "background_fill_secondary", "table_even_background_fill"],
    "surface": [
        *["background_fill_primary", "block_background_fill", "input_background_fill", "input_background_fill_focus"],
        *["button_secondary_background_fill", "checkbox_background_color", "checkbox_label_background_fill"],
        *["block_label_background_fill", "table_odd_background_fill", "panel_background_fill"],
    ],
    "sunken": [
        *["button_secondary_background_fill_hover", "code_background_fill", "stat_background_fill"],
        *["checkbox_label_background_fill_hover"],
    ],
    "ink": [
        *["body_text_color", "block_title_text_color", "button_secondary_text_color", "table_text_color"],
        *["button_secondary_text_color_hover", "accordion_text_color", "checkbox_label_text_color"],
        *["checkbox_label_text_color_selected"],
    ],
    "ink-2": ["body_text_color_subdued", "block_label_text_color", "block_info_text_color"],
    "ink-3": ["input_placeholder_color"],
    "line": ["border_color_primary", "block_border_color", "panel_border_color", "table_border_color"],
    "edge": [
        *["input_border_color", "input_border_color_hover", "button_secondary_border_color", "checkbox_border_color"],
        *["button_secondary_border_color_hover", "checkbox_border_color_hover"],
    ],
    "accent": [
        *["border_color_accent", "color_accent", "link_text_color", "link_text_color_hover", "link_text_color_visited"],
        *["link_text_color_active", "loader_color", "slider_color", "button_primary_background_fill"],
        *["button_primary_border_color", "checkbox_background_color_selected", "checkbox_border_color_selected"],
    ],
    "accent-hover": ["button_primary_background_fill_hover", "button_primary_border_color_hover"],
    "on-accent": ["button_primary_text_color", "button_primary_text_color_hover"],
    "wash": ["color_accent_soft", "border_color_accent_subdued", "checkbox_label_background_fill_selected"],
    "focus": ["input_border_color_focus", "checkbox_border_color_focus"],
    "madder": ["error_text_color", "error_border_color", "error_icon_color"],
    "madder-wash": ["error_background_fill"],
}
_SIZES = {
    "block_border_width": "1px",
    "block_shadow": "none",
    "block_label_text_size": "13px",
    "block_label_text_weight": "500",
    "block_title_text_size": "13px",
    "block_title_text_weight": "650",
    "block_info_text_size": "12px",
    "input_border_width": "1px",
    "input_padding": "7px 10px",
    "input_radius": "8px",
    "button_large_radius": "8px",
    "button_small_radius": "8px",
}


def _themed() -> gr.themes.Base:
    """The theme, each color in light and in dark."""
    theme = gr.themes.Base(radius_size=gr.themes.sizes.radius_md)
    known = inspect.signature(theme.set).parameters
    colors = {name: f"var(--{color})" for color, names in _COLORS.items() for name in names}
    dark = {f"{name}_dark": value for name, value in colors.items() if f"{name}_dark" in known}
    return theme.set(**colors, **dark, **_SIZES)


THEME = _themed()
