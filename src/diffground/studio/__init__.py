"""`diffground studio`: the library in a browser. Only serve, page and the tab_* modules need Gradio."""
