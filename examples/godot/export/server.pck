stands in for the exported project
