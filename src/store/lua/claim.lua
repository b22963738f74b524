return fenced() or {'claimed', {}}
