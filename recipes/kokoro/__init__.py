"""Natural speech by Kokoro-82M: sentences to speak, voices, the network in PyTorch, its programs.

    python -m recipes.kokoro.texts     sentences, in runs/prepare/kokoro/
    python -m recipes.kokoro.speak     speech, in runs/prepare/kokoro/speech/

The network and its voices are those of Kokoro-82M v1.0 (hexgrad, Apache-2.0).
"""
