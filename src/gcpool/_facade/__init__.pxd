# Nothing is declared here. The coverage plugin of Cython goes through packages from a part to its C file, and this file
# makes the directory one to Cython.
