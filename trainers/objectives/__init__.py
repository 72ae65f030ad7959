"""What loss, and which forwards does it need? One objective a file."""
