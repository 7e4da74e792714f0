"""Audio: waveforms to mel spectrograms and back."""
