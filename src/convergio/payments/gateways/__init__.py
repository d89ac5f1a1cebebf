"""Gateways: whoever moves the money and holds the cards, behind one protocol."""
