"""Programs that run a model, behind one interface: llama.cpp in a child process, an OpenAI-compatible URL, an echo."""
