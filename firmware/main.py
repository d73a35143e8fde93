"""What runs at power-up: the node that node.json asks for, on the board that `packtrust_board` describes."""

from packtrust_node.start import build

if __name__ == "__main__":
    build().run()
