"""Colors and fonts: calm, from the system's own fonts, light and dark."""

import gradio as gr

from trainer.contract.home import CHECKOUT

STYLES = sorted((CHECKOUT / "assets").glob("*.css"))
_SANS = ("ui-sans-serif", "system-ui", "sans-serif")
_MONO = ("ui-monospace", "Consolas", "monospace")

THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.teal,
    secondary_hue=gr.themes.colors.teal,
    neutral_hue=gr.themes.colors.stone,
    radius_size=gr.themes.sizes.radius_md,
    font=_SANS,
    font_mono=_MONO,
).set(
    background_fill_primary="white",
    background_fill_primary_dark="*neutral_900",
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    block_background_fill="white",
    block_background_fill_dark="*neutral_900",
    block_border_width="1px",
    block_shadow="none",
    block_label_text_weight="500",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_text_color="white",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
    block_label_text_size="13px",
    block_title_text_size="13px",
    block_title_text_weight="600",
    block_info_text_size="12px",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_400",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_400",
    block_title_text_color="*neutral_800",
    block_title_text_color_dark="*neutral_200",
    input_placeholder_color="*neutral_500",
    input_border_width="1px",
    input_border_color="*neutral_300",
    input_border_color_dark="*neutral_700",
    input_padding="8px 10px",
    input_background_fill="white",
    input_background_fill_dark="*neutral_800",
)
