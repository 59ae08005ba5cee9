// Goes to the address that becomes this element's value. gr.HTML runs this text once per element.
watch("value", () => props.value && location.assign(props.value));
