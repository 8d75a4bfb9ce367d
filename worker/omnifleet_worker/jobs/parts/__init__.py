"""What long jobs have done so far, and how little of it a worker that is killed takes along."""
