// What was found about settings goes to the list that shows it. gr.HTML runs this text once per element.
watch("value", () => document.dispatchEvent(new CustomEvent("settings-marks", { detail: JSON.parse(props.value) })));
