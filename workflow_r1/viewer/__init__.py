"""Looking inside what training and evaluation wrote: `workflow-r1 view`, in a browser and in a terminal."""
