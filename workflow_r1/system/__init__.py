"""What a command needs of the machine: its folders, processes, signals and terminal."""
